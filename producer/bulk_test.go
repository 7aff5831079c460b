package producer_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

// lines are the answers of a bulk stream.
func (a answer) lines(t testing.TB) []producer.LineAnswer {
	t.Helper()
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("got %d %s %s", a.status, a.header.Get("Content-Type"), a.body)
	}
	var lines []producer.LineAnswer
	for d := json.NewDecoder(strings.NewReader(a.body)); ; {
		var l producer.LineAnswer
		if err := d.Decode(&l); err == io.EOF {
			return lines
		} else if err != nil {
			t.Fatalf("%v in %s", err, a.body)
		}
		lines = append(lines, l)
	}
}

func TestBadLinesDoNotHoldUpOthers(t *testing.T) {
	a := start(t)
	body := strings.Join([]string{
		`{"id":"d-1","fcm":{"token":"t1"}}`,
		`{"id":"d-2","fcm":`,
		``,
		`{"id":"d-4","apns":{"token":"xyz"}}`,
		`{"id":"d-5","colour":"red","fcm":{"token":"t"}}`,
		`{"id":"d-6","user":"` + strings.Repeat("x", 64<<10) + `"}`,
		`{"id":"d-7","user":7}`,
		`{"fcm":{"token":"t8"}}`,
		`{"op":"delete","id":"d-9"}`,
		`{"op":"delete"}`,
		`{"op":"purge","id":"d-11"}`,
		`{"id":"é\"","fcm":{"token":"t12"}}` + "\r",
		`{"id":"d-13","fcm":{"token":"t"}} {}`,
		`[1]`,
		`{"id":"d-15","fcm":{"token":"last"}}`,
	}, "\n")
	var got []string
	var derived string
	for _, l := range a.call("POST", "/v1/devices/bulk", body, "Content-Type: application/x-ndjson").lines(t) {
		field := ""
		if len(l.Errors) > 0 {
			field = l.Errors[0].Field
		}
		if l.Line == 8 {
			derived = l.ID
		}
		got = append(got, fmt.Sprintf("%d %s %s", l.Line, l.Status, field))
	}
	want := []string{
		"1 accepted ", "2 refused ", "4 refused apns.token", "5 refused colour", "6 refused ", "7 refused user", "8 accepted ",
		"9 accepted ", "10 refused id", "11 refused op", "12 accepted ", "13 refused ", "14 refused ", "15 accepted ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	ids := map[string]bool{}
	for _, r := range a.records(5, schemas.TopicDevices) {
		ids[string(r.Key)] = r.Value != nil
	}
	if len(ids) != 5 || !ids["shop/d-1"] || !ids["shop/"+derived] || ids["shop/d-9"] || !ids[`shop/é"`] || !ids["shop/d-15"] {
		t.Errorf("on Kafka: got %v", ids)
	}
}

func TestSameTargetHasTheSameID(t *testing.T) {
	a := start(t)
	lines := a.call("POST", "/v1/devices/bulk", strings.Repeat(webpush("https://push.example.com/1", p256dh, auth)+"\n", 2)).lines(t)
	if lines[0].ID == "" || lines[0].ID != lines[1].ID {
		t.Errorf("got %v", lines)
	}
}

// TestLineIsAnsweredBeforeTheNextComes talks on one stream, a line at a time.
func TestLineIsAnsweredBeforeTheNextComes(t *testing.T) {
	a := start(t)
	body, send := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", a.url+"/v1/events", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+allKey)
	answered := make(chan *http.Response, 1)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			close(answered)
			return
		}
		answered <- resp
	}()
	fmt.Fprintln(send, `{"id":"e-1","name":"order.shipped","user":"ada"}`)
	resp := <-answered
	if resp == nil {
		return
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := 1; i <= 3; i++ {
		if !lines.Scan() || lines.Text() != fmt.Sprintf(`{"line":%d,"id":"e-%d","status":"accepted"}`, i, i) {
			t.Fatalf("line %d: got %s", i, lines.Text())
		}
		if i < 3 {
			fmt.Fprintf(send, `{"id":"e-%d","name":"order.shipped","user":"ada"}`+"\n", i+1)
		}
	}
	send.Close()
	if lines.Scan() {
		t.Errorf("more came: %s", lines.Text())
	}
}

// TestOrderOfADeviceIsKept writes one device many times: the last line must be the last on Kafka.
func TestOrderOfADeviceIsKept(t *testing.T) {
	a := start(t)
	const n = 5000
	var body strings.Builder
	for i := range n {
		fmt.Fprintf(&body, `{"id":"d-%d","fcm":{"token":"t-%d"}}`+"\n", i%10, i)
	}
	if got := a.call("POST", "/v1/devices/bulk", body.String()).lines(t); len(got) != n || got[n-1].Line != n {
		t.Fatalf("got %d answers", len(got))
	}
	last := map[string]int{}
	for _, r := range a.records(n, schemas.TopicDevices) {
		var record pb.DeviceRecord
		if err := proto.Unmarshal(r.Value, &record); err != nil {
			t.Fatal(err)
		}
		var i int
		fmt.Sscanf(record.GetDevice().Target.GetFcm().Token, "t-%d", &i)
		if i < last[string(r.Key)] {
			t.Fatalf("%s: %d came after %d", r.Key, i, last[string(r.Key)])
		}
		last[string(r.Key)] = i
	}
}

// TestClientThatStopsReadingIsNotReadFrom sends without reading answers: the server must hold back and collect nothing.
// Once the client reads, all that it sends is answered.
func TestClientThatStopsReadingIsNotReadFrom(t *testing.T) {
	a := start(t)
	const n = 500_000
	conn, err := net.Dial("tcp", strings.TrimPrefix(a.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text := "[" + strings.Repeat(" ", 66) + "]\n" // refused, with an answer that is longer than it
	fmt.Fprintf(conn, "POST /v1/devices/bulk HTTP/1.1\r\nHost: belfry\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", allKey, n*len(text))
	var sent atomic.Int64
	done := make(chan error, 1)
	go func() {
		many := []byte(strings.Repeat(text, 100))
		for range n / 100 {
			if _, err := conn.Write(many); err != nil {
				done <- err
				return
			}
			sent.Add(100)
		}
		done <- nil
	}()
	// Standing still for half a second on loopback is being held back.
	for before := int64(-1); before != sent.Load(); time.Sleep(500 * time.Millisecond) {
		before = sent.Load()
	}
	if sent.Load() == n {
		t.Fatal("the server read everything, though nobody read its answers")
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	answers := 0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		answers++
	}
	if err := <-done; err != nil || answers != n {
		t.Errorf("got %d answers to %d lines, and %v", answers, n, err)
	}
}

// TestStreamThatIsStoppedAnswersWhatItTook ends the server within a stream.
func TestStreamThatIsStoppedAnswersWhatItTook(t *testing.T) {
	k, r := streamtest.Kafka(t), registrytest.Redis(t)
	ctx, stop := context.WithCancel(t.Context())
	a, stopped := serveUntil(ctx, t, k, r)
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", a.url+"/v1/devices/bulk", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+allKey)
	go fmt.Fprintln(send, `{"id":"d-1","fcm":{"token":"t"}}`)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer send.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() {
		t.Fatal("no answer to the first line")
	}
	stop()
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	if lines.Scan() {
		t.Errorf("after the stop: got %s", lines.Text())
	}
}

// open begins a bulk stream of an app, sends a line, and waits for the answer to it. What it returns are the stream's further answers,
// until it ends.
func (a *api) open(key string) *bufio.Scanner {
	a.t.Helper()
	lines, _ := a.talk(key)
	return lines
}

// talk is open, with where further lines go.
func (a *api) talk(key string) (*bufio.Scanner, io.Writer) {
	a.t.Helper()
	body, send := io.Pipe()
	r, err := http.NewRequestWithContext(a.t.Context(), "POST", a.url+"/v1/devices/bulk", body)
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	go fmt.Fprintln(send, `{"id":"d-1","fcm":{"token":"t"}}`)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { send.Close(); resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	if resp.StatusCode != http.StatusOK || !lines.Scan() {
		a.t.Fatalf("a stream was not begun: %d", resp.StatusCode)
	}
	return lines, send
}

func (a *api) refusedAsBusy(method, path, body string, headers ...string) {
	a.t.Helper()
	got := a.call(method, path, body, headers...)
	if p := got.problem(a.t); p.Status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		a.t.Errorf("%s: got %d %s", path, p.Status, p.Detail)
	}
}

const otherKey = "Authorization: Bearer " + newsKey

// TestStreamsOfAnAppLeaveRoomForOthers: an app has all streams that it may, and sends a line now and then.
func TestStreamsOfAnAppLeaveRoomForOthers(t *testing.T) {
	a := start(t)
	a.SetPatience(10*time.Millisecond, time.Minute)
	for range 8 {
		a.open(allKey)
	}
	a.refusedAsBusy("POST", "/v1/events", "")
	if got := a.call("POST", "/v1/devices/bulk", `{"id":"d-2","fcm":{"token":"t"}}`, otherKey).lines(t); len(got) != 1 || got[0].Status != "accepted" {
		t.Errorf("the other app's import: got %v", got)
	}
}

// TestAnAppWithoutAStreamGetsAnothers: more apps than a process has streams for.
func TestAnAppWithoutAStreamGetsAnothers(t *testing.T) {
	a := start(t)
	a.SetPatience(10*time.Millisecond, time.Minute)
	var streams []*bufio.Scanner
	for range 8 {
		streams = append(streams, a.open(allKey))
	}
	for _, app := range []string{"a", "b", "c", "d"} {
		a.Occupy("streams", app)
	}
	a.SetPatience(time.Minute, time.Minute)
	if got := a.call("POST", "/v1/events", `{"id":"e-1","name":"n","user":"ada"}`, otherKey).lines(t); len(got) != 1 || got[0].Status != "accepted" {
		t.Errorf("the other app's events: got %v", got)
	}
	last := streams[7]
	if !last.Scan() || !strings.Contains(last.Text(), `{"line":2,"status":"failed"`) || !strings.Contains(last.Text(), "for another app") || last.Scan() {
		t.Errorf("the stream that was ended for it says %s", last.Text())
	}
}

// TestASlowStreamIsEnded: one that brings less than the least rate holds its slot for nothing.
func TestASlowStreamIsEnded(t *testing.T) {
	a := start(t)
	a.SetPatience(time.Second, 200*time.Millisecond)
	lines := a.open(allKey)
	if !lines.Scan() || !strings.Contains(lines.Text(), `{"line":2,"status":"failed"`) || !strings.Contains(lines.Text(), "128 bytes a second") || lines.Scan() {
		t.Errorf("the stream says %s", lines.Text())
	}
	body, send := io.Pipe()
	defer send.Close()
	r, err := http.NewRequestWithContext(t.Context(), "POST", a.url+"/v1/events", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+allKey)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	p := answer{resp.StatusCode, resp.Header, string(text)}.problem(t)
	if p.Status != http.StatusRequestTimeout || !strings.Contains(p.Detail, "128 bytes a second") {
		t.Errorf("a stream that brings nothing: got %d %s", p.Status, p.Detail)
	}
}

// TestAnAppLeavesRoomForOthers: one has all that it may of what single calls need.
func TestAnAppLeavesRoomForOthers(t *testing.T) {
	a := start(t)
	a.SetPatience(10*time.Millisecond, time.Minute)
	a.Occupy("room", "shop")
	a.Occupy("scans", "shop")
	const put, body = "/v1/devices/d-1", `{"fcm":{"token":"t"}}`
	a.refusedAsBusy("PUT", put, body)
	a.refusedAsBusy("GET", "/v1/dead", "")
	if got := a.call("PUT", put, body, otherKey); got.status != http.StatusAccepted {
		t.Errorf("the other app's device: got %d %s", got.status, got.body)
	}
	if got := a.call("GET", "/v1/dead", "", otherKey); got.status != http.StatusOK {
		t.Errorf("the other app's dead letters: got %d %s", got.status, got.body)
	}
}

func TestEventsTakeTheKeysApp(t *testing.T) {
	a := start(t)
	lines := a.call("POST", "/v1/events", strings.Join([]string{
		`{"id":"e-1","name":"order.shipped","user":"ada","fields":{"carrier":"Poste"}}`,
		`{"id":"e-2","name":"order.shipped","user":"ada","app":"news"}`,
		`{"name":"order.shipped","user":"ada"}`,
		`{"id":"e-4","name":"order.shipped","user":"ada","at":"yesterday"}`,
	}, "\n")).lines(t)
	var got []string
	for _, l := range lines {
		if len(l.Errors) == 0 {
			got = append(got, l.Status)
		} else {
			got = append(got, l.Errors[0].Field)
		}
	}
	if strings.Join(got, " ") != "accepted app id at" {
		t.Errorf("got %v %+v", got, lines)
	}
	r := a.records(1, schemas.TopicEvents)[0]
	var e pb.Event
	if err := proto.Unmarshal(r.Value, &e); err != nil {
		t.Fatal(err)
	}
	if string(r.Key) != "shop/ada" || e.App != "shop" || e.At != now.UnixMilli() || e.Fields["carrier"].GetText() != "Poste" {
		t.Errorf("got %s %v", r.Key, &e)
	}
}
