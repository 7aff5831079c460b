package config

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/stream"
)

// broker starts a Kafka and returns a configuration for it.
func broker(t testing.TB, opts ...kfake.Opt) *Config {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	c := Default()
	c.Instance = "i"
	c.Kafka.Brokers = cluster.ListenAddrs()
	return c
}

// findingsOfKafka is what check says of it alone.
func findingsOfKafka(t testing.TB, c *Config) []Finding {
	t.Helper()
	var r report
	checkKafka(t.Context(), c, &r)
	return r.findings
}

func TestKafkaSASLAndTLS(t *testing.T) {
	pair, certPEM, keyPEM := serverCert(t)
	ca, keyFile := write(t, "ca.pem", certPEM), write(t, "key.pem", keyPEM)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		for _, secure := range []bool{false, true} {
			name := mechanism
			opts := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser(mechanism, "belfry", "hunter2")}
			if secure {
				name += " over TLS"
				opts = append(opts, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}))
			}
			t.Run(name, func(t *testing.T) {
				c := broker(t, opts...)
				c.Kafka.SASL = SASL{Mechanism: mechanism, Username: "belfry", Password: "hunter2"}
				if secure {
					c.Kafka.TLS = ClientTLS{Enabled: true, CAFile: ca, CertFile: ca, KeyFile: keyFile}
				}
				if f := finding(findingsOfKafka(t, c), "kafka"); f.Level != OK {
					t.Errorf("%+v", f)
				}
				c.Kafka.SASL.Password = "wrong"
				f := finding(findingsOfKafka(t, c), "kafka")
				if f.Level != Fail || !strings.Contains(f.Mend, "kafka.sasl") || strings.Contains(f.Detail, "wrong") {
					t.Errorf("with a wrong password: %+v", f)
				}
				if secure {
					c.Kafka.TLS.CAFile = ""
					if f := finding(findingsOfKafka(t, c), "kafka"); f.Level != Fail || !strings.Contains(f.Detail, "certificate") {
						t.Errorf("without its CA: %+v", f)
					}
				}
			})
		}
	}
}

func TestCheckKafkaTopics(t *testing.T) {
	c := broker(t)
	k, err := c.Stream(slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	f := finding(findingsOfKafka(t, c), "topics")
	if f.Level != Fail || !strings.Contains(f.Detail, "belfry.devices") || f.Mend != "belfry topics apply" {
		t.Errorf("a missing topic: %+v", f)
	}
	if _, err := stream.ApplyTopics(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if f := finding(findingsOfKafka(t, c), "topics"); f.Level != OK {
		t.Errorf("%+v", f)
	}
	if err := stream.MarkCluster(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	client, err := k.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).UpdatePartitions(t.Context(), 14, "belfry.devices"); err != nil {
		t.Fatal(err)
	}
	f = finding(findingsOfKafka(t, c), "belfry.devices")
	if f.Level != Fail || !strings.Contains(f.Detail, "has 14 partitions, and had 12") || f.Mend != "belfry topics repair" {
		t.Errorf("partitions were added: %+v", f)
	}
}

func TestCheckRealKafka(t *testing.T) {
	brokers := os.Getenv("BELFRY_TEST_KAFKA")
	if brokers == "" {
		t.Skip("BELFRY_TEST_KAFKA is not set")
	}
	c := Default()
	c.Kafka.Brokers, c.Kafka.Prefix = strings.Split(brokers, ","), "config-test."
	findings := findingsOfKafka(t, c)
	if f := finding(findings, "kafka"); f.Level != OK {
		t.Errorf("%+v", f)
	}
	if f := finding(findings, "topics"); f.Level != Fail || !strings.Contains(f.Detail, "config-test.devices") {
		t.Errorf("a missing topic: %+v", f)
	}
}

func TestCheckKafkaRefuses(t *testing.T) {
	old := broker(t, kfake.MaxVersions(kversion.V3_7_0()))
	if f := finding(findingsOfKafka(t, old), "kafka"); f.Level != Fail || !strings.Contains(f.Mend, "Kafka 4.0") {
		t.Errorf("an old Kafka: %+v", f)
	}
	away := Default()
	away.Kafka.Brokers = []string{"127.0.0.1:1"}
	if f := finding(findingsOfKafka(t, away), "kafka"); f.Level != Fail || !strings.Contains(f.Detail, "refused") {
		t.Errorf("no Kafka: %+v", f)
	}
}

// firstMessage asks the mechanism for what it would show to a broker.
func firstMessage(t testing.TB, m sasl.Mechanism) (string, error) {
	t.Helper()
	_, first, err := m.Authenticate(context.Background(), "broker:9092")
	return string(first), err
}

func TestOAuthBearer(t *testing.T) {
	static := SASL{Mechanism: "OAUTHBEARER", Token: "t0"}
	if first, err := firstMessage(t, static.mechanism()); err != nil || !strings.Contains(first, "Bearer t0") {
		t.Errorf("%q, %v", first, err)
	}

	file := write(t, "token", "t1\n")
	m := (&SASL{Mechanism: "OAUTHBEARER", TokenFile: file}).mechanism()
	for _, want := range []string{"t1", "t2"} {
		if err := os.WriteFile(file, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if first, err := firstMessage(t, m); err != nil || !strings.Contains(first, "Bearer "+want+"\x01") {
			t.Errorf("renewed: %q, %v", first, err)
		}
	}

	var calls atomic.Int32
	var refuse atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		if refuse.Load() || user != "id" || pass != "s3cret" || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "a b" {
			http.Error(w, `{"error":"invalid_client","error_description":"s3cret"}`, http.StatusUnauthorized)
			return
		}
		calls.Add(1)
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"access_token": "t3", "token_type": "bearer", "expires_in": 3600})
	}))
	defer server.Close()
	s := SASL{Mechanism: "OAUTHBEARER", TokenURL: server.URL, ClientID: "id", ClientSecret: "s3cret", Scopes: []string{"a", "b"}}
	m = s.mechanism()
	for range 3 {
		if first, err := firstMessage(t, m); err != nil || !strings.Contains(first, "Bearer t3") {
			t.Errorf("%q, %v", first, err)
		}
	}
	if calls.Load() != 1 {
		t.Errorf("%d requests for a token that lasts an hour", calls.Load())
	}
	refuse.Store(true)
	if _, err := firstMessage(t, s.mechanism()); err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "401") {
		t.Errorf("refused: %v", err)
	}
}

func TestTLSFilesAreNamedInErrors(t *testing.T) {
	_, certPEM, _ := serverCert(t)
	c := Default()
	c.Kafka.TLS = ClientTLS{Enabled: true, CAFile: write(t, "ca.pem", "x")}
	if _, err := c.Stream(slog.Default()); err == nil || !strings.Contains(err.Error(), "kafka.tls.ca_file: ") {
		t.Error(err)
	}
	c.Redis.TLS = ClientTLS{Enabled: true, CertFile: write(t, "c.pem", certPEM), KeyFile: write(t, "k.pem", "x")}
	if _, err := c.Registry(); err == nil || !strings.Contains(err.Error(), "redis.tls.cert_file") {
		t.Error(err)
	}
}

func TestCheckRedis(t *testing.T) {
	server := miniredis.RunT(t)
	server.RequireAuth("hunter2")
	address := server.Addr()
	check := func(password Secret) Finding {
		c := Default()
		c.Redis.Addresses, c.Redis.Password = []string{address}, password
		var r report
		checkRedis(t.Context(), c, &r)
		return r.findings[0]
	}
	// miniredis does not tell its version.
	if f := check("hunter2"); f.Level != Warn {
		t.Errorf("%+v", f)
	}
	if f := check("wrong"); f.Level != Fail || !strings.Contains(f.Mend, "redis.password") {
		t.Errorf("%+v", f)
	}
	server.Close()
	if f := check("hunter2"); f.Level != Fail {
		t.Errorf("%+v", f)
	}
}

func TestCheckRealRedis(t *testing.T) {
	tested := false
	for variable, isCluster := range map[string]bool{"BELFRY_TEST_REDIS": false, "BELFRY_TEST_REDIS_CLUSTER": true} {
		addresses := os.Getenv(variable)
		if addresses == "" {
			continue
		}
		tested = true
		c := Default()
		c.Redis.Addresses = strings.Split(addresses, ",")
		for _, set := range []bool{false, true} {
			c.Redis.Cluster = set
			var r report
			checkRedis(t.Context(), c, &r)
			if f := r.findings[0]; (f.Level == OK) != (set == isCluster) || f.Level == Warn {
				t.Errorf("%s with redis.cluster %v: %+v", variable, set, f)
			}
		}
	}
	if !tested {
		t.Skip("neither BELFRY_TEST_REDIS nor BELFRY_TEST_REDIS_CLUSTER is set")
	}
}

func TestCheckRedisKind(t *testing.T) {
	tests := []struct {
		version, mode, policy string
		cluster               bool
		want                  []Level
	}{
		{"7.2.1", "standalone", "noeviction", false, []Level{OK}},
		{"8.0.0", "cluster", "noeviction", true, []Level{OK}},
		{"7.2.1", "standalone", "noeviction", true, []Level{Fail}},
		{"7.2.1", "cluster", "noeviction", false, []Level{Fail}},
		{"7.2.1", "sentinel", "", false, []Level{Fail}},
		{"5.0.14", "standalone", "noeviction", false, []Level{Fail}},
		{"7.2.1", "standalone", "allkeys-lru", false, []Level{OK, Warn}},
	}
	for _, test := range tests {
		var r report
		checkRedisKind(&r, "redis", map[string]string{
			"redis_version": test.version, "redis_mode": test.mode, "maxmemory_policy": test.policy, "maxmemory": "100",
		}, test.cluster)
		for i, want := range test.want {
			if len(r.findings) != len(test.want) || r.findings[i].Level != want {
				t.Errorf("%+v: %+v", test, r.findings)
			}
		}
	}
}

// TestSimulatorsConfiguration: what `belfry simulate` writes is a configuration that is taken, and nothing is wrong with it.
func TestSimulatorsConfiguration(t *testing.T) {
	sim, err := simulator.Start(simulator.Options{Population: simulator.Population{Devices: 10}})
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	dir := t.TempDir()
	if err := sim.WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	c, err := Load(dir+"/belfry.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Check(t.Context(), c) {
		if f.Level != OK {
			t.Errorf("%+v", f)
		}
	}
}
