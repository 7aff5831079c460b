package bench

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/belfry/belfry/producer"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/simulator"
)

// providers is a server that stands in for all of them, with the credentials and the devices of a simulator that nobody
// asks: the simulator is in Go and as strict as providers are, and would cost more than what is measured. Where that is no
// matter there is no server, and the simulator is asked.
type providers struct {
	*server // nil: none
	sim     *simulator.Simulator
	dir     string
	// moved rewrites the simulator's addresses, if there is a server.
	moved *strings.Replacer
}

// startServer starts one with its files in a folder: startNginx or startNghttpd.
type startServer func(ctx context.Context, dir string) (*server, error)

// providers starts them and writes belfry.yaml, with credentials, to the environment's folder.
func (e *Env) providers(ctx context.Context, who simulator.Population, start startServer) (_ *providers, err error) {
	p := &providers{dir: e.Dir}
	if p.server, err = start(ctx, e.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.sim, err = simulator.Start(simulator.Options{Population: who}); err != nil {
		return nil, err
	}
	var pairs []string
	for _, address := range p.sim.Addresses() {
		pairs = append(pairs, address, p.addr)
	}
	p.moved = strings.NewReplacer(append(pairs, "    fcm:\n", "    fcm:\n      per_minute: 1000000000\n")...)
	return p, p.setUp(who.Apps)
}

// simulated starts a simulator and writes belfry.yaml, with credentials, to the environment's folder.
func (e *Env) simulated(o simulator.Options) (_ *providers, err error) {
	p := &providers{dir: e.Dir, moved: strings.NewReplacer()}
	if p.sim, err = simulator.Start(o); err != nil {
		return nil, err
	}
	if err := p.sim.WriteSetup(p.dir); err != nil {
		return nil, joined(err, p.close)
	}
	return p, nil
}

// setUp writes what belfry serve needs.
func (p *providers) setUp(apps []string) error {
	if err := p.sim.WriteSetup(p.dir); err != nil {
		return err
	}
	files := []string{filepath.Join(p.dir, "belfry.yaml")}
	for _, app := range apps {
		files = append(files, filepath.Join(p.dir, app, "firebase.json"))
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(name, []byte(p.moved.Replace(string(b))), 0o600)
		}
		if err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(p.dir, "ca.pem"), p.ca, 0o600)
}

func (p *providers) close() (err error) {
	if p.server != nil {
		err = p.stop()
	}
	if p.sim != nil {
		err = errors.Join(err, p.sim.Close())
	}
	return err
}

// writeDevices writes an app's devices as the API takes them, with targets at the server.
func (p *providers) writeDevices(w io.Writer, app string) error {
	return p.sim.WriteDevices(movedWriter{w, p.moved}, app)
}

// movedWriter gets whole lines.
type movedWriter struct {
	io.Writer
	moved *strings.Replacer
}

func (m movedWriter) Write(b []byte) (int, error) {
	_, err := m.moved.WriteString(m.Writer, string(b))
	return len(b), err
}

// known is a device as a delivery needs it.
type known struct {
	id     string
	target *pb.Target
	// variables are those of text.
	variables map[string]string
}

// devices are all of an app's.
func (p *providers) devices(app string) (all []known, err error) {
	r, w := io.Pipe()
	defer r.Close()
	go func() { w.CloseWithError(p.writeDevices(w, app)) }()
	for in := json.NewDecoder(r); ; {
		var d producer.Device
		if err := in.Decode(&d); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("a device of the simulator's: %w", err)
		}
		k := known{id: d.ID, variables: map[string]string{"device.platform": d.Platform}}
		for _, name := range []string{"first_name", "level"} {
			k.variables["attributes."+name] = fmt.Sprint(d.Attributes[name])
		}
		if k.target, err = targetOf(&d); err != nil {
			return nil, err
		}
		all = append(all, k)
	}
}

func targetOf(d *producer.Device) (*pb.Target, error) {
	switch {
	case d.APNs != nil:
		token, err := hex.DecodeString(d.APNs.Token)
		return &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: token, Environment: pb.Environment_ENVIRONMENT_PRODUCTION}}}, err
	case d.FCM != nil:
		return &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: d.FCM.Token, Fid: d.FCM.FID}}}, nil
	case d.WebPush != nil:
		key, err1 := base64.RawURLEncoding.DecodeString(d.WebPush.P256dh)
		auth, err2 := base64.RawURLEncoding.DecodeString(d.WebPush.Auth)
		return &pb.Target{Kind: &pb.Target_Webpush{Webpush: &pb.WebPushTarget{
			Endpoint: d.WebPush.Endpoint, P256Dh: key, Auth: auth,
		}}}, errors.Join(err1, err2)
	}
	return nil, fmt.Errorf("device %s has no target", d.ID)
}
