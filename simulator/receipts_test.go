package simulator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseID(t *testing.T) {
	id, ok := ParseID(testID)
	if !ok || id.String() != testID {
		t.Errorf("%v %v", id, ok)
	}
	for _, s := range []string{"", "0193a5c000008000800000000000000a", testID + "0", "{193a5c0-0000-8000-8000-00000000000}", "0193a5c0-0000-8000-8000-00000000000g", "0193a5c0-0000-8000-80000-0000000000a"} {
		if _, ok := ParseID(s); ok {
			t.Errorf("%q was read", s)
		}
	}
}

// The file holds what was accepted, over a kill of the simulator in the middle of a line.
func TestReceiptsFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "receipts.ndjson")
	s := start(t, func(o *Options) { o.Receipts = name })
	apns, fcm := newPusher(t, s, "demo", APNs), newPusher(t, s, "demo", FCM)
	apns.want(1, 200)
	apns.want(1, 200)
	fcm.want(2, 200)
	if sum := summary(t, s); sum.Distinct != 2 || sum.Repeats != 1 {
		t.Errorf("%+v", sum)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[2], `{"id":"`+deliveryID(2).String()+`","app":"demo","platform":"fcm","origin":"fcm","status":200,"time":1`) ||
		!strings.HasSuffix(lines[2], `,"device":"`+described(t, s, fcm.device).ID+`"}`) {
		t.Fatalf("%s", b)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	half := append(b, lines[0][:40]...)
	if err := os.WriteFile(name, half, 0o600); err != nil {
		t.Fatal(err)
	}
	s = start(t, func(o *Options) { o.Receipts = name })
	newPusher(t, s, "demo", APNs).want(3, 200)
	if sum := summary(t, s); sum.Distinct != 3 || sum.Repeats != 1 || s.Received(deliveryID(1)) != 2 {
		t.Errorf("after a restart: %+v", sum)
	}
	if d := described(t, s, apns.device); d.Accepted != 3 || d.Asked != 1 {
		t.Errorf("after a restart the device has %+v: want 3 accepted, and 1 asked since", d)
	}
	if err := s.ResetReceipts(); err != nil {
		t.Fatal(err)
	}
	newPusher(t, s, "demo", APNs).want(4, 200)
	if sum := summary(t, s); sum.Distinct != 1 || sum.ByStatus["apns"]["200"] != 1 {
		t.Errorf("after a reset: %+v", sum)
	}
	if b, err = os.ReadFile(name); err != nil || bytes.Count(b, []byte{'\n'}) != 1 {
		t.Errorf("after a reset: %s %v", b, err)
	}
}

func described(t testing.TB, s *Simulator, d device) Device {
	t.Helper()
	out, err := s.Device(s.world.Apps[d.app], string(appendDeviceID(nil, d.index)))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Another process can ask which device is which, and what became of pushes to it.
func TestDevicesByControl(t *testing.T) {
	s := start(t, nil)
	p := newPusher(t, s, "demo", Mozilla)
	id := described(t, s, p.device).ID
	p.want(1, 201)
	if status, body := ask(t, s, "PUT", "/faults/limited", `{"kind":"status","status":429,"origin":"mozilla","targets":["`+id+`"]}`); status != 204 {
		t.Fatal(status, body)
	}
	p.want(2, 429)
	want := `{"id":"` + id + `","app":"demo","origin":"mozilla","fate":"healthy","faults":["limited"],"asked":2,"accepted":1}` + "\n"
	if _, body := ask(t, s, "GET", "/devices/demo?id="+id, ""); body != want {
		t.Errorf("got %s, want %s", body, want)
	}
	_, body := ask(t, s, "GET", "/devices/demo", "")
	fates := map[Fate]int{Gone: strings.Count(body, `"fate":"gone"`), Misplaced: strings.Count(body, `"fate":"misplaced"`)}
	known, err := s.Devices("demo")
	if err != nil {
		t.Fatal(err)
	}
	for fate, got := range fates {
		if want := known["apns"][fate] + known["fcm"][fate] + known["webpush"][fate]; got != want || got == 0 {
			t.Errorf("%d devices are %s, want %d", got, fate, want)
		}
	}
	if n := strings.Count(body, "\n"); n != 2000 || !strings.Contains(body, want) {
		t.Errorf("%d devices", n)
	}
	for path, want := range map[string]int{"/devices/nobody": 404, "/devices/demo?id=x": 400, "/devices/demo?id=d-002000": 400} {
		if status, body := ask(t, s, "GET", path, ""); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := ask(t, s, "POST", "/receipts/reset", ""); status != 204 || described(t, s, p.device).Asked != 0 {
		t.Error("a reset keeps what devices were asked")
	}
}

func TestReceiptsFileUnreadable(t *testing.T) {
	name := filepath.Join(t.TempDir(), "receipts.ndjson")
	if err := os.WriteFile(name, []byte("not receipts\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Options{Receipts: name}); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("got %v", err)
	}
}

func ask(t *testing.T, s *Simulator, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+s.Addresses()["control"]+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestControl(t *testing.T) {
	s := start(t, nil)
	p := newPusher(t, s, "demo", APNs)
	p.want(1, 200)
	p.want(1, 200)
	p.want(2, 200)

	if status, body := ask(t, s, "PUT", "/faults/sick", `{"kind":"status","platform":"apns","status":503,"retry_after":3,"for":"1h"}`); status != 204 {
		t.Fatal(status, body)
	}
	p.want(3, 503)
	if _, body := ask(t, s, "GET", "/faults", ""); !strings.Contains(body, `"sick":{"kind":"status","platform":"apns","for":"1h0m0s","status":503,"retry_after":3,"struck":1}`) {
		t.Error(body)
	}
	for _, bad := range []string{`{"kind":"sulk"}`, `{"kind":"stall","colour":1}`, `{`} {
		if status, body := ask(t, s, "PUT", "/faults/x", bad); status != 400 || !strings.Contains(body, "fault") {
			t.Error(status, body)
		}
	}
	if status, _ := ask(t, s, "DELETE", "/faults/sick", ""); status != 204 {
		t.Error(status)
	}
	if status, _ := ask(t, s, "DELETE", "/faults/sick", ""); status != 404 {
		t.Error(status)
	}
	p.want(3, 200)
	if status, _ := ask(t, s, "DELETE", "/faults", ""); status != 204 {
		t.Error(status)
	}

	var sum Summary
	if _, body := ask(t, s, "GET", "/receipts/summary", ""); json.Unmarshal([]byte(body), &sum) != nil || sum.Distinct != 3 || sum.Repeats != 1 {
		t.Error(body)
	}
	_, body := ask(t, s, "GET", "/receipts", "")
	lines := bufio.NewScanner(strings.NewReader(body))
	times := map[string]int{}
	for lines.Scan() {
		var l struct {
			ID    string
			Times int
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		times[l.ID] = l.Times
	}
	if len(times) != 3 || times[deliveryID(1).String()] != 2 {
		t.Error(times)
	}
	want := fmt.Sprintf("{\"id\":\"%s\",\"times\":1}\n{\"id\":\"%s\",\"times\":0}\n", deliveryID(2), deliveryID(9))
	if _, body := ask(t, s, "GET", "/receipts?id="+deliveryID(2).String()+"&id="+deliveryID(9).String(), ""); body != want {
		t.Error(body)
	}
	if status, _ := ask(t, s, "GET", "/receipts?id=x", ""); status != 400 {
		t.Error(status)
	}
	if _, body := ask(t, s, "GET", "/info", ""); !strings.Contains(body, s.Address(Windows)) || !strings.Contains(body, "BEGIN CERTIFICATE") {
		t.Error(body)
	}
	if status, _ := ask(t, s, "POST", "/receipts/reset", ""); status != 204 || summary(t, s).Distinct != 0 {
		t.Error(status)
	}
}

// Whoever listens hears of each delivery when it is accepted, and of none that is refused.
func TestAcceptedIsTold(t *testing.T) {
	var told []ID
	s := start(t, func(o *Options) { o.Accepted = func(id ID) { told = append(told, id) } })
	apns := newPusher(t, s, "demo", APNs)
	apns.want(1, 200)
	if err := s.SetFault("sick", Fault{Kind: Status, Status: 503}); err != nil {
		t.Fatal(err)
	}
	apns.want(2, 503)
	s.ClearFaults()
	apns.want(3, 200)
	if len(told) != 2 || told[0] != deliveryID(1) || told[1] != deliveryID(3) {
		t.Errorf("told of %v", told)
	}
}
