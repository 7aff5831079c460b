package webpush

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/simulator"
)

// subscription is a line of the simulator's devices.
type subscription struct {
	ID      string
	WebPush struct{ Endpoint, P256dh, Auth string }
}

func (s subscription) delivery(t *testing.T) *pb.Delivery {
	t.Helper()
	d := delivery(s.WebPush.Endpoint)
	id := schemas.DeliveryID("demo", "c1", s.ID, 0)
	d.Id = id[:]
	d.ExpiresAt = time.Now().Add(time.Hour).UnixMilli()
	key, err1 := b64.DecodeString(s.WebPush.P256dh)
	auth, err2 := b64.DecodeString(s.WebPush.Auth)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	d.Target.GetWebpush().P256Dh, d.Target.GetWebpush().Auth = key, auth
	return d
}

// What Belfry makes by itself, the fields, the VAPID header and the encrypted body, is taken by the simulator's four
// services, which verify and decrypt by their own reading of the RFCs.
func TestTheSimulatorTakesWhatIsSealed(t *testing.T) {
	sim, err := simulator.Start(simulator.Options{Population: simulator.Population{Seed: 1, Devices: 40, Mix: simulator.Mix{WebPush: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	p := simulated(t, sim)
	var lines bytes.Buffer
	if err := sim.WriteDevices(&lines, "demo"); err != nil {
		t.Fatal(err)
	}
	var batch []*senders.Request
	ended := &ends{}
	m := compile(t, &pb.Message{Content: &pb.Content{Title: "Hi {{ attributes.name }}"}})
	hosts := map[string]bool{}
	for devices := json.NewDecoder(&lines); devices.More(); {
		var s subscription
		if err := devices.Decode(&s); err != nil {
			t.Fatal(err)
		}
		r := &senders.Request{}
		r.Handler = ended
		if err := p.Encode(r, s.delivery(t), m, time.Now()); err != nil {
			t.Fatal(err)
		}
		hosts[r.Origin] = true
		batch = append(batch, r)
	}
	var sealed atomic.Int32
	s := newSealers()
	s.seal(batch, false, p.apps["demo"].padding, func(part []*wire.Request) { sealed.Add(int32(len(part))) })
	s.close()
	if sealed.Load() != 40 || len(ended.results) != 0 || len(hosts) != 4 {
		t.Fatalf("%d sealed, %d failed, %d services", sealed.Load(), len(ended.results), len(hosts))
	}
	client := trusting(t, sim)
	for _, r := range batch {
		post(t, client, p.apps["demo"].vapid, r)
		if id, _ := simulator.ParseID(uuid.UUID(r.Delivery.GetId()).String()); sim.Received(id) != 1 {
			t.Errorf("%s has %d receipts", r.Origin, sim.Received(id))
		}
	}
}

func simulated(t *testing.T, sim *simulator.Simulator) *Provider {
	t.Helper()
	app, err := sim.App("demo")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{PublicKey: app.VAPIDPublic, PrivateKey: app.VAPIDPrivate, Subject: app.Subject, CA: sim.CA()}
	for _, s := range []simulator.Service{simulator.Chrome, simulator.Mozilla, simulator.Apple, simulator.Windows} {
		c.AllowHosts = append(c.AllowHosts, sim.Address(s))
	}
	p, err := New(map[string]Config{"demo": c}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func trusting(t *testing.T, sim *simulator.Simulator) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(sim.CA())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// post sends a sealed request with net/http.
func post(t *testing.T, c *http.Client, v *vapid, r *senders.Request) {
	t.Helper()
	header, err := v.authorization(r.Origin, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, r.Origin+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Fields {
		req.Header.Set(f.Name, f.Value)
	}
	req.Header.Set("authorization", header)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("%s: %s %s", r.Origin, resp.Status, resp.Header.Get("X-Simulator-Detail"))
	}
}
