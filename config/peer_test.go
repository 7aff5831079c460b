package config

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
)

const twoApps = `
redis: {prefix: "x:"}
apps:
  shop:
    apns: {key_file: a.p8, key_id: ABC123DEFG, team_id: DEF123GHIJ, topic: com.example.shop}
    fcm: {service_account_file: account.json}
    rules: [{name: r, event: e, message: {title: hello}}]
  news:
    rules: []
`

// TestFingerprint: it changes with what must be alike in all processes, and with nothing else.
func TestFingerprint(t *testing.T) {
	account := filepath.Join(t.TempDir(), "account.json")
	write := func(key string) {
		t.Helper()
		text := `{"project_id":"p","client_email":"e","private_key_id":"` + key + `","private_key":"` + key + `"}`
		if err := os.WriteFile(account, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	print := func(change func(*Config)) string {
		t.Helper()
		c := load(t, twoApps)
		c.Apps["shop"].FCM.ServiceAccountFile = account
		if change != nil {
			change(c)
		}
		p, err := c.Peer("v1")
		if err != nil {
			t.Fatal(err)
		}
		return Fingerprint(p)
	}
	write("one")
	same := print(nil)
	for name, change := range map[string]func(*Config){
		"roles":          func(c *Config) { c.Roles = []string{"fanout"} },
		"instance":       func(c *Config) { c.Instance = "other" },
		"a path":         func(c *Config) { c.Apps["shop"].APNs.KeyFile = "elsewhere.p8" },
		"an API key":     func(c *Config) { c.Apps["shop"].Keys = append(c.Apps["shop"].Keys, Key{Name: "new"}) },
		"nothing at all": nil,
	} {
		if got := print(change); got != same {
			t.Errorf("%s changes it", name)
		}
	}
	seen := map[string]string{same: "none"}
	for name, change := range map[string]func(*Config){
		"redis.prefix":     func(c *Config) { c.Redis.Prefix = "y:" },
		"an app fewer":     func(c *Config) { delete(c.Apps, "news") },
		"a key id":         func(c *Config) { c.Apps["shop"].APNs.KeyID = "ABC123DEFX" },
		"a platform fewer": func(c *Config) { c.Apps["shop"].APNs = nil },
		"a platform more":  func(c *Config) { c.Apps["news"].WebPush = &WebPush{PublicKey: "k"} },
		"a rule":           func(c *Config) { c.Apps["shop"].Rules[0].When = "fields.total > 50" },
		"a rule's message": func(c *Config) { c.Apps["shop"].Rules[0].Message.Title = "bye" },
		"no rules":         func(c *Config) { c.Apps["shop"].Rules = []Rule{} },
		"rules unsaid":     func(c *Config) { c.Apps["shop"].Rules = nil },
		"another account":  func(*Config) { write("two") },
		"no account":       func(*Config) { os.Remove(account) },
	} {
		write("one")
		got := print(change)
		if before, taken := seen[got]; taken {
			t.Errorf("%s looks like %s", name, before)
		}
		seen[got] = name
	}
}

// TestPeerTellsNoSecret: what goes to the others holds no part of a secret's text.
func TestPeerTellsNoSecret(t *testing.T) {
	c := load(t, twoApps)
	c.Apps["shop"].WebPush = &WebPush{PublicKey: "public", PrivateKey: "topsecret"}
	with, err := c.Peer("v1")
	if err != nil {
		t.Fatal(err)
	}
	c.Apps["shop"].WebPush.PrivateKey = "another"
	without, err := c.Peer("v1")
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(with, without) {
		t.Error("it depends on a private key")
	}
}
