package simulator

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

type line struct {
	ID, User, Platform, Locale string
	TimeZone                   string `json:"time_zone"`
	AppVersion                 string `json:"app_version"`
	Tags                       []string
	Attributes                 map[string]any
	APNs                       *struct{ Token, Environment string }
	FCM                        *struct{ Token, FID string }
	WebPush                    *struct{ Endpoint, P256dh, Auth string }
}

// Every line is JSON of the API's form, and every token in it is one that its provider knows.
func TestDevices(t *testing.T) {
	s := start(t, nil)
	var out bytes.Buffer
	if err := s.WriteDevices(&out, "demo"); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(&out)
	dec.DisallowUnknownFields()
	platforms, users, ids, tokens := map[string]int{}, map[string]int{}, map[string]bool{}, map[string]bool{}
	var last line
	for dec.More() {
		var l line
		if err := dec.Decode(&l); err != nil {
			t.Fatal(err)
		}
		platforms[l.Platform]++
		users[l.User]++
		ids[l.ID] = true
		tokens[knownTo(t, s, l)] = true
		last = l
	}
	if len(ids) != 2000 || len(tokens) != 2000 || last.ID != "d-001999" {
		t.Errorf("%d ids and %d tokens, up to %s", len(ids), len(tokens), last.ID)
	}
	want, err := s.Devices("demo")
	if err != nil {
		t.Fatal(err)
	}
	for p, n := range platforms {
		if sum := want[p][Healthy] + want[p][Gone] + want[p][Misplaced]; sum != n || want[p][Gone] == 0 || want[p][Misplaced] == 0 {
			t.Errorf("%s: %d lines, %v counted", p, n, want[p])
		}
	}
	if len(platforms) != 3 {
		t.Errorf("platforms %v", platforms)
	}
	for u, n := range users {
		if n > 3 {
			t.Errorf("%s holds %d devices", u, n)
		}
	}
}

// knownTo finds the token of a line, after asking its provider whether it knows it.
func knownTo(t *testing.T, s *Simulator, l line) string {
	t.Helper()
	var ok bool
	var token string
	switch {
	case l.APNs != nil:
		token = l.APNs.Token
		_, ok = s.world.openAPNs(token)
	case l.FCM != nil && l.FCM.FID != "":
		token = l.FCM.FID
		_, ok = s.world.openFID(token)
	case l.FCM != nil:
		token = l.FCM.Token
		_, ok = s.world.openFCM(token)
	case l.WebPush != nil:
		token = l.WebPush.Endpoint
		_, ok = s.openEndpoint(token)
		ok = ok && len(l.WebPush.P256dh) == 87 && len(l.WebPush.Auth) == 22
	}
	if !ok {
		t.Errorf("unknown target in %+v", l)
	}
	return token
}

// Endpoints have the shape of each service's, and are another's when they are written another way.
func TestEndpointShapes(t *testing.T) {
	s := start(t, withNtfy)
	for svc, shape := range map[Service]string{
		Chrome:  `^/fcm/send/[\w-]{22}:APA91b[\w-]{43}$`,
		Mozilla: `^/wpush/v2/gAAAAAB[\w-]{43}$`,
		Apple:   `^/Q[\w-]{43}$`,
		Windows: `^/w/\?token=([0-9A-Za-z]|%2b|%2f)+%3d$`,
		Ntfy:    `^/up[\w-]{43}\?up=1$`,
	} {
		for _, d := range healthy(t, s, svc, 20) {
			path := vendors[svc].endpoint(s.world, d.target)
			if !regexp.MustCompile(shape).MatchString(path) {
				t.Errorf("%s: %s", svc, path)
			}
			for _, other := range []string{path + "x", path[:len(path)-1], regexp.MustCompile("%2[bf]|%3d|:|up=").ReplaceAllString(path, "x")} {
				if _, ok := s.openEndpoint(s.URL(svc) + other); ok && other != path {
					t.Errorf("%s takes %s for %s", svc, other, path)
				}
			}
		}
	}
	d := healthy(t, s, Windows, 1)[0]
	upper := regexp.MustCompile("%3d$").ReplaceAllString(endpointOf(s, d), "%3D")
	if _, ok := s.openEndpoint(upper); ok {
		t.Error("Windows takes an endpoint that was escaped anew")
	}
}

func TestMix(t *testing.T) {
	s := start(t, func(o *Options) { o.Population.Mix = Mix{WebPush: 1} })
	n, err := s.Devices("other")
	if err != nil || len(n) != 1 || n["webpush"][Healthy] == 0 {
		t.Errorf("%v %v", n, err)
	}
}

func TestWriteFiles(t *testing.T) {
	s, dir := start(t, nil), t.TempDir()
	if err := s.WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "belfry.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var conf struct {
		Apps map[string]struct {
			Keys []struct {
				Name, Hash string
				Scopes     []string
			}
			APNs struct {
				KeyFile    string `yaml:"key_file"`
				KeyID      string `yaml:"key_id"`
				TeamID     string `yaml:"team_id"`
				SandboxURL string `yaml:"sandbox_url"`
				Topic, URL string
				CAFile     string `yaml:"ca_file"`
			}
			FCM struct {
				ServiceAccountFile string `yaml:"service_account_file"`
				URL                string
				CAFile             string `yaml:"ca_file"`
			}
			WebPush struct {
				PublicKey  string `yaml:"public_key"`
				PrivateKey string `yaml:"private_key"`
				Subject    string
				AllowHosts []string `yaml:"allow_hosts"`
				CAFile     string   `yaml:"ca_file"`
			}
		}
	}
	if err := yaml.UnmarshalWithOptions(b, &conf, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	a, c := app(t, s, "demo"), conf.Apps["demo"]
	for _, f := range []string{c.APNs.KeyFile, c.APNs.CAFile, c.FCM.ServiceAccountFile, c.WebPush.CAFile, filepath.Join(dir, "other", "devices.ndjson")} {
		if info, err := os.Stat(f); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
	if c.APNs.URL != s.URL(APNs) || c.APNs.TeamID != a.TeamID || c.FCM.URL != s.URL(FCM) || c.WebPush.PrivateKey != a.VAPIDPrivate || len(c.Keys) != 1 {
		t.Errorf("%+v", c)
	}
	if diff := cmp.Diff([]string{s.Address(Chrome), s.Address(Mozilla), s.Address(Apple), s.Address(Windows)}, c.WebPush.AllowHosts); diff != "" {
		t.Error(diff)
	}
}
