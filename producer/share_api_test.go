package producer_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/belfry/belfry/listen"
	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/stream/streamtest"
)

// bigDraft has 10,000 ids of 40 bytes: some 430 KB.
func bigDraft() string {
	ids := make([]string, 10_000)
	for i := range ids {
		ids[i] = fmt.Sprintf(`"%040d"`, i)
	}
	return `{"message":{"title":"t"},"audience":{"devices":[` + strings.Join(ids, ",") + `]}}`
}

// TestDraftsOfAnAppLeaveRoomForOthers: drafts lie in the memory of every process, so an app's are bounded, and go on once it has
// cancelled some.
func TestDraftsOfAnAppLeaveRoomForOthers(t *testing.T) {
	a := start(t)
	a.launch("")
	draft, first := bigDraft(), ""
	a.Weigh("shop", 14<<20)
	taken, got := 0, answer{}
	for ; taken < 10; taken++ {
		got = a.call("POST", "/v1/campaigns", draft)
		if got.status != http.StatusCreated {
			break
		}
		if first == "" {
			first = got.id(t)
		}
	}
	p := got.problem(t)
	if taken < 3 || taken > 5 || p.Status != http.StatusTooManyRequests || !strings.Contains(p.Detail, "of 32 MiB") {
		t.Fatalf("%d drafts were taken, and then: %d %s", taken, p.Status, p.Detail)
	}
	if got := a.call("POST", "/v1/campaigns", draft, otherKey); got.status != http.StatusCreated {
		t.Errorf("the other app's: got %d %s", got.status, got.body)
	}
	if got := a.call("POST", "/v1/campaigns/"+first+"/cancel", ""); got.status != http.StatusOK {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if got := a.call("POST", "/v1/campaigns", draft); got.status != http.StatusCreated {
		t.Errorf("after one was cancelled: got %d %s", got.status, got.body)
	}
}

func (a answer) id(t testing.TB) string {
	t.Helper()
	var c producer.Campaign
	a.read(t, &c)
	return c.ID
}

// TestADraftThatNobodyDecidesCounts: a launcher that is away makes all of them when it is back.
func TestADraftThatNobodyDecidesCounts(t *testing.T) {
	a := start(t)
	a.Weigh("shop", 16<<20-100<<10)
	a.call("POST", "/v1/campaigns", campaignBody) // 202 after three seconds
	a.Weigh("shop", 16<<20-8<<10)
	if got := a.call("POST", "/v1/campaigns", campaignBody); got.status != http.StatusTooManyRequests {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// TestWhatIsHeldBackIsBounded: every lane looks each name up.
func TestWhatIsHeldBackIsBounded(t *testing.T) {
	a := start(t)
	a.HoldNames(4)
	put := func(i int, headers ...string) answer {
		app := "shop"
		if len(headers) > 0 {
			app = "news"
		}
		return a.call("PUT", fmt.Sprintf("/v1/control/destinations/webpush/%s/name-%d", app, i), `{"paused":true}`, headers...)
	}
	for i := range 2 {
		if got := put(i); got.status != http.StatusOK {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	if p := put(2).problem(t); p.Status != http.StatusTooManyRequests || !strings.Contains(p.Detail, "half") {
		t.Errorf("got %d %s", p.Status, p.Detail)
	}
	if got := put(1); got.status != http.StatusOK {
		t.Errorf("one that is held back already: got %d %s", got.status, got.body)
	}
	a.call("DELETE", "/v1/control/destinations/webpush/shop/name-0", "")
	if got := put(2); got.status != http.StatusOK {
		t.Errorf("after one was lifted: got %d %s", got.status, got.body)
	}
	if got := put(0, otherKey); got.status != http.StatusOK {
		t.Errorf("the other app's: got %d %s", got.status, got.body)
	}
}

// TestCallsOfAnAppLeaveRoomForOthers: an app has all calls that it may, such as streams of progress.
func TestCallsOfAnAppLeaveRoomForOthers(t *testing.T) {
	a := start(t)
	a.SetPatience(10*time.Millisecond, time.Minute)
	a.Occupy("calls", "shop")
	a.refusedAsBusy("GET", "/v1/control", "")
	for _, key := range []string{otherKey, asOperator} {
		if got := a.call("GET", "/v1/control", "", key); got.status != http.StatusOK {
			t.Errorf("%s: got %d %s", key, got.status, got.body)
		}
	}
	if got := a.call("GET", "/readyz", ""); got.status != http.StatusOK {
		t.Errorf("readyz: got %d %s", got.status, got.body)
	}
}

// TestConnectionsWithoutAKeyLeaveRoom: many that say nothing, and a stream that has said nothing for longer.
func TestConnectionsWithoutAKeyLeaveRoom(t *testing.T) {
	k, r := streamtest.Kafka(t), registrytest.Redis(t)
	registrytest.Registry(t, r)
	listener, err := listen.On("127.0.0.1:0", listen.Options{Name: "the test", Limit: 8, Log: streamtest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	a := newAPIOn(t, k, r, streamtest.Log(t), listener)
	streamtest.Run(t, a.Run)
	a.awaitReady()
	lines, send := a.talk(allKey)
	for range 40 {
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	if got := a.call("GET", "/v1/control", "", otherKey); got.status != http.StatusOK {
		t.Errorf("a call: got %d %s", got.status, got.body)
	}
	fmt.Fprintln(send, `{"id":"d-2","fcm":{"token":"t"}}`)
	if !lines.Scan() || !strings.Contains(lines.Text(), `"line":2,"id":"d-2","status":"accepted"`) {
		t.Errorf("the stream: got %s", lines.Text())
	}
}
