package webpush

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
)

func TestPublic(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "127.0.0.1", "127.255.0.1", "100.64.0.1", "100.100.100.200", "169.254.169.254", "172.16.0.1", "192.168.1.1",
		"192.0.0.192", "198.18.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "168.63.129.16",
		"::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1",
		"ff02::1", "2002:7f00:1::", "2001::1", "2001:db8::1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1",
	} {
		if public(netip.MustParseAddr(s)) {
			t.Errorf("%s counts as public", s)
		}
	}
	for _, s := range []string{"8.8.8.8", "142.250.74.74", "100.63.0.1", "172.32.0.1", "2a00:1450:4009::200a", "2001:4860:4860::8888", "64:ff9b::808:808"} {
		if !public(netip.MustParseAddr(s)) {
			t.Errorf("%s does not count as public", s)
		}
	}
}

func TestEndpointForm(t *testing.T) {
	a, err := newAllowed([]string{"127.0.0.1:8443", "Push.Internal", "[::1]:9000"})
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]string{
		"https://fcm.googleapis.com/x":        "https://fcm.googleapis.com",
		"https://FCM.googleapis.com:443/x":    "https://fcm.googleapis.com",
		"https://push.example:8443/x":         "https://push.example:8443",
		"https://8.8.8.8/x":                   "https://8.8.8.8",
		"https://[2001:4860:4860::8888]/x":    "https://[2001:4860:4860::8888]",
		"http://127.0.0.1:8443/x":             "http://127.0.0.1:8443",
		"https://127.0.0.1:8443/x":            "https://127.0.0.1:8443",
		"https://push.internal/x":             "https://push.internal",
		"http://[::1]:9000/x":                 "http://[::1]:9000",
		"https://push.example?token=in-query": "https://push.example",
	}
	for endpoint, want := range good {
		if origin, _, err := a.parse(endpoint); err != nil || origin != want {
			t.Errorf("%s: got %s, %v", endpoint, origin, err)
		}
	}
	bad := []string{
		"", "x", "https://", "https:///x", "//push.example/x", "ftp://push.example/x", "javascript:alert(1)",
		"http://push.example/x",            // plain
		"http://push.internal/x",           // port 80 is not the one on the list
		"https://user:pass@push.example/x", // somebody's login
		"https://push.example/x#fragment",  //
		"https://push.example:22/x", "https://push.example:6/x", "https://push.example:99999/x",
		"https://127.0.0.1/x", "https://127.0.0.1:8444/x", "https://10.0.0.1/x", "https://[::1]/x", "https://[fe80::1%25eth0]/x",
		"https://169.254.169.254/latest/meta-data", "https://[::ffff:169.254.169.254]/", "https://[64:ff9b::a9fe:a9fe]/",
		"https://push.example\\@127.0.0.1/x", "https://127。0。0。1/x", "https://exa mple/x", "https://a,b/x",
		"https://push.example/" + strings.Repeat("x", maxEndpoint),
	}
	for _, endpoint := range bad {
		if origin, _, err := a.parse(endpoint); err == nil {
			t.Errorf("%s was let through as %s", endpoint, origin)
		} else if strings.Contains(err.Error(), "push.example") {
			t.Errorf("the error tells the endpoint: %v", err)
		}
	}
}

func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"https://push.example:8443/x?y", "https://[::1]/", "https://0x7f.1/", "https://a%00b/", "https://127.0.0.1:8443"} {
		f.Add(s)
	}
	a, err := newAllowed(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, endpoint string) {
		origin, rest, err := a.parse(endpoint)
		if err != nil {
			return
		}
		if !strings.HasPrefix(origin, "https://") {
			t.Errorf("%q: origin %q", endpoint, origin)
		}
		// What is sent must be read as what was checked.
		again, _, err := a.parse(origin + rest)
		if err != nil || again != origin {
			t.Errorf("%q: %q then %q, %v", endpoint, origin, again, err)
		}
		if _, err := http.NewRequest(http.MethodPost, origin+rest, nil); err != nil {
			t.Errorf("%q: %v", endpoint, err)
		}
	})
}

// A name may mean one address when it is checked and another when it is used: what counts is the address dialled.
func TestANameThatLeadsInsideIsNotDialled(t *testing.T) {
	eachTransport(t, testANameThatLeadsInsideIsNotDialled)
}

func testANameThatLeadsInsideIsNotDialled(t *testing.T, c Config) {
	reached := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	t.Cleanup(s.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "https://"), ":")
	p := provider(t, c)
	v := send(t, p, delivery("https://localhost:"+port+"/x"), compile(t, &pb.Message{}))
	want := senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Of: senders.OfDevice, Code: "private-address"}
	if v != want || reached {
		t.Errorf("got %+v, reached %v", v, reached)
	}
}

func TestAllowedHostInPlainHTTP(t *testing.T) { eachTransport(t, testAllowedHostInPlainHTTP) }

func testAllowedHostInPlainHTTP(t *testing.T, c Config) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }))
	t.Cleanup(s.Close)
	c.AllowHosts = []string{strings.TrimPrefix(s.URL, "http://")}
	if v := send(t, provider(t, c), delivery(s.URL+"/x"), compile(t, &pb.Message{})); v.Outcome != pb.Outcome_OUTCOME_ACCEPTED {
		t.Errorf("got %+v", v)
	}
}

func TestDestinations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigins()
		for origin, want := range map[string]string{
			"https://fcm.googleapis.com":                "fcm.googleapis.com",
			"https://updates.push.services.mozilla.com": "updates.push.services.mozilla.com",
			"https://web.push.apple.com":                "web.push.apple.com",
			"https://db5p.notify.windows.com":           "notify.windows.com",
			"https://wns2-par02p.notify.windows.com":    "notify.windows.com",
			"https://evilnotify.windows.com":            "https://evilnotify.windows.com",
			"https://fcm.googleapis.com:8443":           "https://fcm.googleapis.com:8443",
			"https://push.example":                      "https://push.example",
		} {
			if got := o.name(origin); got != want {
				t.Errorf("%s is %s, want %s", origin, got, want)
			}
		}
		// The expander, which is told of destinations by name, must call them the same.
		for _, endpoint := range []string{
			"https://push.example/x", "https://push.example:443?x", "HTTPS://Push.Example/x", "https://push.example:8443/x/y?z",
			"https://[2001:DB8::1]:443/x", "https://wns2-par02p.notify.windows.com/w/?token=x", "http://127.0.0.1:80/x", "http://127.0.0.1:9/x",
		} {
			a := allowed{"127.0.0.1:80": true, "127.0.0.1:9": true, "[2001:db8::1]:443": true, "push.example:8443": true}
			origin, _, err := a.parse(endpoint)
			if err != nil {
				t.Fatalf("%s: %v", endpoint, err)
			}
			target := &pb.Target{Kind: &pb.Target_Webpush{Webpush: &pb.WebPushTarget{Endpoint: endpoint}}}
			if got, want := schemas.DestinationName(target), o.name(origin); got != want {
				t.Errorf("%s is %s to the expander, and %s to the lane", endpoint, got, want)
			}
		}
		for i := range 10 * maxOrigins {
			o.name(fmt.Sprintf("https://%d.example", i))
		}
		if len(o.used) != maxOrigins {
			t.Errorf("%d origins have a destination of their own", len(o.used))
		}
		if got := o.name("https://late.example"); got != schemas.DestinationOther {
			t.Errorf("one too many is %s", got)
		}
		if got := o.name("https://push.example"); got != "https://push.example" {
			t.Errorf("one that was there became %s", got)
		}
		time.Sleep(originIdle + time.Second)
		if got := o.name("https://late.example"); got != "https://late.example" || len(o.used) > maxOrigins {
			t.Errorf("with room again it is %s, beside %d", got, len(o.used))
		}
	})
}

// What a delivery names lies in its record's buffer, which is used again when the delivery is over.
func TestNothingKeptLiesInARecord(t *testing.T) {
	o := newOrigins()
	v, err := newVapid(config())
	if err != nil {
		t.Fatal(err)
	}
	record := []byte("https://push.example")
	origin := unsafe.String(&record[0], len(record))
	var name, header string
	for range 2 { // the first time it is kept, the second it is found
		name = o.name(origin)
		if header, err = v.authorization(origin, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	copy(record, "https://other.example")
	again, err := v.authorization("https://push.example", time.Now())
	if name != "https://push.example" || o.used[name].name != name || again != header || err != nil {
		t.Errorf("the destination's name became %q, the header was kept: %v, %v", name, again == header, err)
	}
}

// FuzzUsualEndpoint: the short way through parse leads to the same place as the long one.
func FuzzUsualEndpoint(f *testing.F) {
	for _, s := range []string{
		"https://fcm.googleapis.com/fcm/send/cX-y_z:APA91b", "https://updates.push.services.mozilla.com/wpush/v2/gAAA=", "https://web.push.apple.com/QG",
		"https://par02p.notify.windows.com/w/?token=BQ%3d%3d&x=1+2", "https://1.2.3.4/x", "https://a/", "https://a//b?", "https://a/?", "https://a.b./..",
		"https://a/x#y", "https://a/%zz", "https://a:443/x", "https://u@a/x", "HTTPS://a/x",
	} {
		f.Add(s)
	}
	long, err := newAllowed(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		origin, rest, usual := cut(s)
		if !usual {
			return
		}
		wantOrigin, wantRest, err := long.parseAny(s)
		if err != nil || origin != wantOrigin || rest != wantRest {
			t.Errorf("%q is %q and %q, want %q and %q, error %v", s, origin, rest, wantOrigin, wantRest, err)
		}
	})
}
