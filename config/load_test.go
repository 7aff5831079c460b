package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// write puts text into a file of the test's own folder and returns its path.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, text string, environ ...string) *Config {
	t.Helper()
	c, err := Load(write(t, "belfry.yaml", text), environ)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNothingGivenIsOneProcessWithEverything(t *testing.T) {
	for _, path := range []string{"", write(t, "empty.yaml", ""), write(t, "comment.yaml", "# nothing\n")} {
		c, err := Load(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		host, _ := os.Hostname()
		if c.Instance != host || !c.Runs("ledger") || c.Listen != "127.0.0.1:8080" || c.Kafka.Prefix != "belfry." {
			t.Errorf("%+v", c)
		}
	}
}

func TestFileIsReadOverTheDefaults(t *testing.T) {
	c := load(t, `
instance: node-1
roles: [senders.apns, senders.fcm]
kafka:
  brokers: ["k1:9092", "k2:9092"]
  tls: {enabled: true}
redis: {addresses: ["r:6379"]}
senders:
  timeout: 15s
apps:
  shop:
    keys:
      - {name: backend, hash: "sha256:`+strings.Repeat("ab", 32)+`", scopes: [send, read]}
    rules:
      - name: welcome
        event: signed-up
        when: fields.plan == "pro"
        message:
          title: "Hello {{ event.first_name | 'you' }}, that is ${PRICE}"
          apns: {raw: {aps: {x: 12345678901234567}}}
`)
	if c.Instance != "node-1" || c.Runs("producer") || !c.Runs("senders.fcm") || len(c.Kafka.Brokers) != 2 {
		t.Errorf("%+v", c)
	}
	if c.Kafka.Prefix != "belfry." || c.Senders.Transport.APNs != "wire" || c.Senders.Timeout != 15*time.Second {
		t.Errorf("defaults beside given keys are lost: %+v %+v", c.Kafka, c.Senders)
	}
	rule := c.Apps["shop"].Rules[0]
	if rule.Message.Title != "Hello {{ event.first_name | 'you' }}, that is ${PRICE}" {
		t.Errorf("a rule's message is not to be touched: %q", rule.Message.Title)
	}
	if got := strings.Join(strings.Fields(string(rule.Message.APNs.Raw)), ""); got != `{"aps":{"x":12345678901234567}}` {
		t.Errorf("raw = %s", got)
	}
}

// An app that answers no event says so: one that says nothing may be in a file that is too old, or another role's.
func TestNoRulesAndNothingSaidAreTwoThings(t *testing.T) {
	c := load(t, "apps:\n  none: {rules: []}\n  unsaid: {}\n")
	if none, unsaid := c.Apps["none"].Rules, c.Apps["unsaid"].Rules; none == nil || len(none) != 0 || unsaid != nil {
		t.Errorf("rules: [] is %#v, and no word %#v", none, unsaid)
	}
}

func TestVariablesOverrideTheFile(t *testing.T) {
	c := load(
		t, "instance: from-file\nlisten: 127.0.0.1:1\nkafka: {prefix: file.}\n",
		"BELFRY_INSTANCE=from-env", "BELFRY_KAFKA_BROKERS=k1:9092,k2:9092", "BELFRY_KAFKA_TLS_ENABLED=true",
		"BELFRY_REDIS_PASSWORD=hunter2", "BELFRY_REDIS_ADDRESSES=r:6379", "BELFRY_FANOUT_BUDGET=1m",
		"BELFRY_ROLES=ledger,fanout",
		"BELFRY_SERVER=https://x", "BELFRY_KEY=k", "BELFRY_CONFIG=c", "BELFRY_TEST_KAFKA=k", "PATH=/bin",
		"BELFRY_SERVICE_HOST=10.0.0.1", "BELFRY_PORT=tcp://10.0.0.1:80", "BELFRY_PORT_80_TCP_ADDR=10.0.0.1",
	)
	if c.Instance != "from-env" || c.Listen != "127.0.0.1:1" || c.Kafka.Prefix != "file." {
		t.Errorf("%+v", c)
	}
	if len(c.Kafka.Brokers) != 2 || !c.Kafka.TLS.Enabled || c.Redis.Password.Reveal() != "hunter2" || c.Fanout.Budget != time.Minute || len(c.Roles) != 2 {
		t.Errorf("%+v", c)
	}
}

func TestReferencesAndFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"secret":      "from ${NOT_EXPANDED} file\n",
		"belfry.yaml": "data_dir: data\nkafka:\n  brokers: ['${HOST}:9092', k2:9092]\n  sasl: {mechanism: PLAIN, username: u, password_file: secret}\nredis:\n  addresses: [r:1]\n  password: '$${literal} ${PASS}'\n  tls: {enabled: true, ca_file: /abs/ca.pem}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(filepath.Join(dir, "belfry.yaml"), []string{"HOST=k1", "PASS=p${x", "BELFRY_TLS_CERT_FILE=rel.pem", "BELFRY_TLS_KEY_FILE=rel.key"})
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		c.Kafka.Brokers[0]:             "k1:9092",
		c.Kafka.SASL.Password.Reveal(): "from ${NOT_EXPANDED} file",
		c.Redis.Password.Reveal():      "${literal} p${x",
		c.DataDir:                      filepath.Join(dir, "data"),
		c.Redis.TLS.CAFile:             "/abs/ca.pem",
		c.TLS.CertFile:                 "rel.pem", // by a variable: relative to the process, not to the file
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestRefusals: each fault has its line, its key and the mend.
func TestRefusals(t *testing.T) {
	hash := `"sha256:` + strings.Repeat("ab", 32) + `"`
	tests := []struct{ name, text, want string }{
		{"unknown key", "listen: :1\nkafka:\n  borkers: ['a:1']\n", `belfry.yaml:3: kafka.borkers: unknown key; did you mean "brokers"?`},
		{"unknown key without a near one", "log:\n  rotation: x\n", `belfry.yaml:2: log.rotation: unknown key; known here: level, format`},
		{"unknown key in a list", "apps:\n  shop:\n    keys:\n      - name: a\n        hahs: x\n", `belfry.yaml:5: apps.shop.keys[0].hahs: unknown key; did you mean "hash"?`},
		{"unknown key in a message", "apps:\n  shop:\n    rules:\n      - name: r\n        message:\n          tilte: x\n", `belfry.yaml:6: apps.shop.rules[0].message.tilte: unknown key; did you mean "title"?`},
		{"not YAML", "listen: [\n", `belfry.yaml:1: `},
		{"a key twice", "listen: :1\nlisten: :2\n", `belfry.yaml:2: `},
		{"two documents", "listen: :1\n---\nlisten: :2\n", `belfry.yaml: holds several YAML documents`},
		{"not a bool", "redis:\n  cluster: maybe\n", `belfry.yaml:2: redis.cluster: must be true or false`},
		{"not a duration", "senders:\n  timeout: [1]\n", `belfry.yaml:2: senders.timeout: must be a duration`},
		{"not a list", "redis:\n  addresses: {a: b}\n", `belfry.yaml:2: redis.addresses: must be a list`},
		{"not a text", "kafka: {brokers: [kafka:9092]}\n", `belfry.yaml:1: kafka.brokers[0]: must be a text, in quotes if it holds a colon`},
		{"not a section", "kafka: yes please\n", `belfry.yaml:1: kafka: must be a section`},
		{"duration out of range", "senders:\n  timeout: 5m\n", `belfry.yaml:2: senders.timeout: is 5m0s; must be 1s to 1m0s`},
		{"unknown role", "kafka: {brokers: ['a:1']}\nredis: {addresses: ['a:1']}\nroles:\n  - sender.apns\n", `belfry.yaml:4: roles[0]: is "sender.apns"; must be one of producer`},
		{"role twice", "kafka: {brokers: ['a:1']}\nredis: {addresses: ['a:1']}\nroles:\n  - ledger\n  - ledger\n", `belfry.yaml:5: roles[1]: "ledger" is there twice`},
		{"roles alone", "roles: [producer, registry, trigger, fanout, ledger]\n", `belfry.yaml:1: roles: lacks senders.apns.urgent, but without kafka.brokers`},
		{"one Redis each", "kafka: {brokers: ['a:1']}\nroles: [producer]\n", `redis.addresses: is left out`},
		{"no port", "kafka:\n  brokers: [localhost]\n", `belfry.yaml:2: kafka.brokers[0]: is "localhost"; must be host:port`},
		{"TLS but not enabled", "kafka:\n  brokers: ['a:1']\n  tls:\n    ca_file: x\n", `belfry.yaml:3: kafka.tls.enabled: is false`},
		{"half a certificate", "tls:\n  cert_file: x\n", `belfry.yaml:1: tls: has only one of cert_file and key_file`},
		{"SASL without mechanism", "kafka:\n  brokers: ['a:1']\n  sasl:\n    username: x\n", `belfry.yaml:3: kafka.sasl.mechanism: is missing`},
		{"SASL mechanism", "kafka:\n  brokers: ['a:1']\n  sasl:\n    mechanism: GSSAPI\n", `belfry.yaml:4: kafka.sasl.mechanism: is "GSSAPI"; must be one of PLAIN`},
		{"SCRAM without password", "kafka:\n  brokers: ['a:1']\n  sasl: {mechanism: SCRAM-SHA-512, username: x}\n", `belfry.yaml:3: kafka.sasl: SCRAM-SHA-512 needs username, and password`},
		{"OAuth with both", "kafka:\n  brokers: ['a:1']\n  sasl: {mechanism: OAUTHBEARER, token: x, token_url: 'https://x/'}\n", `belfry.yaml:3: kafka.sasl: OAUTHBEARER needs either`},
		{"OAuth over http", "kafka:\n  brokers: ['a:1']\n  sasl: {mechanism: OAUTHBEARER, token_url: 'http://x/', client_id: a, client_secret: b}\n", `belfry.yaml:3: kafka.sasl.token_url: must be an https URL`},
		{"many servers", "redis:\n  addresses: [a:1, b:1]\n", `belfry.yaml:2: redis.addresses: has 2 addresses`},
		{"braces", "redis:\n  prefix: '{x}'\n", `belfry.yaml:2: redis.prefix: is "{x}"`},
		{"password twice", "redis:\n  addresses: ['a:1']\n  password: x\n  password_file: y\n", `belfry.yaml:3: redis.password: is given, and redis.password_file too`},
		{"no such file", "redis:\n  addresses: ['a:1']\n  password_file: /nowhere/x\n", `belfry.yaml:3: redis.password_file: open /nowhere/x: no such file`},
		{"unset reference", "redis:\n  addresses:\n    - ${NOWHERE}:1\n", `belfry.yaml:3: redis.addresses[0]: refers to ${NOWHERE}, which is not set`},
		{"app's name", "apps:\n  My App: {keys: []}\n", `belfry.yaml:2: apps.My App: must be named`},
		{"empty app", "apps:\n  shop:\n", `belfry.yaml:2: apps.shop: is empty`},
		{"hash", "apps:\n  shop:\n    keys:\n      - name: a\n        hash: secret\n        scopes: [send]\n", `belfry.yaml:5: apps.shop.keys[0].hash: must be "sha256:"`},
		{"an app's key for an operator", "operators: [{name: ops, hash: " + hash + "}]\napps:\n  a: {keys: [{name: a, hash: " + hash + ", scopes: [send]}]}\n", `belfry.yaml:3: apps.a.keys[0].hash: is the same key as operators[0]`},
		{"an operator's key that is none", "operators: [{name: ops, hash: x}]\n", `belfry.yaml:1: operators[0].hash: must be "sha256:" and 64 hexadecimal digits`},
		{"more than all", "apps:\n  a: {auto_pause: {percent: 101}}\n", `belfry.yaml:2: apps.a.auto_pause.percent: is 101; give 0 to 100`},
		{"one key for two apps", "apps:\n  a: {keys: [{name: a, hash: " + hash + ", scopes: [send]}]}\n  b: {keys: [{name: a, hash: " + hash + ", scopes: [send]}]}\n", `belfry.yaml:3: apps.b.keys[0].hash: is the same key as apps.a.keys[0]`},
		{"scope", "apps:\n  a: {keys: [{name: a, hash: " + hash + ", scopes: [sned]}]}\n", `belfry.yaml:2: apps.a.keys[0].scopes[0]: is "sned"; must be one of send`},
		{"two APNs credentials", "apps:\n  a:\n    apns: {key_file: a, p12_file: b, topic: t}\n", `belfry.yaml:3: apps.a.apns: needs one credential`},
		{"no team", "apps:\n  a:\n    apns: {key_file: a, key_id: b, topic: t}\n", `belfry.yaml:3: apps.a.apns: key_file needs key_id and team_id`},
		{"no topic", "apps:\n  a:\n    apns: {p12_file: a}\n", `belfry.yaml:3: apps.a.apns.topic: is missing`},
		{"no service account", "apps:\n  a:\n    fcm: {url: 'https://x'}\n", `belfry.yaml:3: apps.a.fcm.service_account_file: is missing`},
		{"public key", "apps:\n  a:\n    webpush:\n      public_key: AAAA\n", `belfry.yaml:4: apps.a.webpush.public_key: must be an uncompressed point`},
		{"subject", "apps:\n  a:\n    webpush:\n      subject: ops@example.com\n", `belfry.yaml:4: apps.a.webpush.subject: is "ops@example.com"; must be "mailto:"`},
		{"padding", "apps:\n  a:\n    webpush:\n      padding: 5000\n", `belfry.yaml:4: apps.a.webpush.padding: is 5000; must be 1 to 4096 bytes, or left out`},
		{"web push rate", "apps:\n  a:\n    webpush:\n      per_minute: -1\n", `belfry.yaml:4: apps.a.webpush.per_minute: is -1; give the messages a minute that each push service may be sent, or leave it out`},
		{"allowed host", "apps:\n  a:\n    webpush:\n      allow_hosts:\n        - 127.0.0.1\n", `belfry.yaml:5: apps.a.webpush.allow_hosts[0]: is "127.0.0.1"; must be host:port`},
		{"rule's message", "apps:\n  a:\n    rules:\n      - name: r\n        event: e\n        message:\n          title: x\n          apns:\n            priority: 7\n", `belfry.yaml:9: apps.a.rules[0].message.apns.priority: is 7`},
		{"rule's template", "apps:\n  a:\n    rules:\n      - name: r\n        event: e\n        message:\n          title: '{{ evnt.x }}'\n", `belfry.yaml:7: apps.a.rules[0].message.title: unknown variable "evnt.x"; did you mean "event.x"?`},
		{"rule's platform", "apps:\n  a:\n    rules:\n      - name: r\n        event: e\n        platforms: [ios]\n        message: {title: x}\n", `belfry.yaml:6: apps.a.rules[0].platforms[0]: is "ios"; must be one of apns`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, "belfry.yaml", test.text)
			_, err := Load(path, nil)
			if err == nil {
				t.Fatal("taken")
			}
			text := strings.ReplaceAll(err.Error(), filepath.Dir(path)+"/", "")
			if !strings.Contains("\n"+text, "\n"+test.want) {
				t.Errorf("got\n%s\nwant\n%s", text, test.want)
			}
		})
	}
}

func TestVariablesAreRefused(t *testing.T) {
	for pair, want := range map[string]string{
		"BELFRY_KAFKA_BORKERS=a:1":   `BELFRY_KAFKA_BORKERS: unknown variable; did you mean "BELFRY_KAFKA_BROKERS"?`,
		"BELFRY_COMPRESSION=x":       `BELFRY_COMPRESSION: unknown variable; docs/configuration.md lists`,
		"BELFRY_APPS_SHOP=x":         `BELFRY_APPS_SHOP: unknown variable; apps are not set by variables`,
		"BELFRY_REDIS_CLUSTER=maybe": `BELFRY_REDIS_CLUSTER: must be true or false`,
		"BELFRY_FANOUT_BUDGET=x":     `BELFRY_FANOUT_BUDGET: must be a duration`,
	} {
		_, err := Load("", []string{pair})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", pair, err, want)
		}
	}
}

func TestEveryFaultAtOnce(t *testing.T) {
	_, err := Load(write(t, "belfry.yaml", "listne: x\nlog: {level: loud}\nkafka: {brokres: [], prefix: '/'}\n"), []string{"BELFRY_X=1", "BELFRY_REDIS_CLUSTER=maybe"})
	var p Problems
	if !errors.As(err, &p) || len(p) != 6 {
		t.Errorf("%d faults, want 6:\n%v", len(p), err)
	}
}

func TestAByteOrderMarkIsPassedOver(t *testing.T) {
	if c := load(t, "\ufefflisten: 127.0.0.1:9000\n"); c.Listen != "127.0.0.1:9000" {
		t.Errorf("listen is %q", c.Listen)
	}
}

func TestUnreadableFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil)
	if err == nil || !strings.Contains(err.Error(), "cannot read the configuration: open ") {
		t.Error(err)
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	c := load(t, "redis: {addresses: ['a:1'], password: hunter2}\n")
	c.Apps = map[string]*App{"a": {WebPush: &WebPush{PrivateKey: "hunter2"}, APNs: &APNs{P12Password: "hunter2"}}}
	c.Kafka.SASL.Password = "hunter2"
	var printed strings.Builder
	fmt.Fprintf(&printed, "%v %+v %#v %s", c, *c, c.Redis, c.Redis.Password)
	fmt.Fprintf(&printed, "%v %+v %#v", c.Apps["a"].WebPush, c.Apps["a"].APNs, *c.Apps["a"].WebPush)
	log := slog.New(slog.NewJSONHandler(&printed, nil))
	log.Info("config", "config", c, "password", c.Redis.Password)
	slog.New(slog.NewTextHandler(&printed, nil)).Info("config", "config", c, "password", c.Redis.Password)
	for _, encode := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		b, err := encode(c)
		if err != nil {
			t.Fatal(err)
		}
		printed.Write(b)
	}
	if strings.Contains(printed.String(), "hunter2") {
		t.Errorf("a secret shows in %s", printed.String())
	}
	// A fault of a file that holds a secret must not quote it.
	_, err := Load(write(t, "belfry.yaml", "redis:\n  password: hunter2\n  cluster: [hunter2]\nlisten: ':1\n"), nil)
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

// FuzzYAML: no file panics the reading, and what is taken is without fault.
func FuzzYAML(f *testing.F) {
	for _, seed := range []string{
		"", "~", "listen: :1", "kafka: {brokers: [a:1]}", "a: &x {b: c}\nlog: *x\nredis:\n  <<: *x", "- 1", "? [a]\n: b",
		"apps: {a: {keys: [{name: x}]}}", "apps: !!map {a: ~}", "log: |\n  text", "\"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l := &loader{path: "x", config: Default(), tree: &tree{}}
		if l.yaml([]byte(text)) {
			l.expand()
			l.anchorPaths()
			l.config.faults()
			l.locate()
		} else if len(l.problems) == 0 {
			t.Error("refused without a reason")
		}
	})
}
