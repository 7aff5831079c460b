package config

import (
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	instanceName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	topicPrefix  = regexp.MustCompile(`^[A-Za-z0-9._-]{0,64}$`)
)

// Validate finds every fault that can be seen without opening a file or a connection. The error is a Problems.
func (c *Config) Validate() error {
	if p := c.faults(); len(p) > 0 {
		return p
	}
	return nil
}

func (c *Config) faults() Problems {
	var p Problems
	if !instanceName.MatchString(c.Instance) {
		p.add("instance", "is %q; must be 1 to 64 letters, digits and ._-", c.Instance)
	}
	p.each("roles", c.Roles, roleNames())
	p.address("listen", c.Listen)
	if c.Health != "" {
		p.address("health", c.Health)
		if c.Health == c.Listen && c.Runs("producer") {
			p.add("health", "is the same as listen, where the API is; give it an address of its own, or leave it out: the API has /readyz too")
		}
	}
	p.both("tls", "cert_file", c.TLS.CertFile, "key_file", c.TLS.KeyFile)
	p.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	p.oneOf("log.format", c.Log.Format, "text", "json")
	p.oneOf("data.sync", c.Data.Sync, SyncInterval, SyncAlways)
	c.Kafka.check(&p)
	c.Redis.check(&p)
	c.checkEmbedded(&p)
	c.checkApps(&p)
	p.oneOf("senders.transport.apns", c.Senders.Transport.APNs, Wire, Library)
	p.oneOf("senders.transport.fcm", c.Senders.Transport.FCM, Wire, Library)
	p.oneOf("senders.transport.webpush", c.Senders.Transport.WebPush, Wire, Library)
	p.between("senders.timeout", c.Senders.Timeout, time.Second, time.Minute)
	p.between("fanout.budget", c.Fanout.Budget, time.Second, 10*time.Minute)
	return p
}

// sharing are the roles that use Redis.
var sharing = []string{"producer", "registry", "trigger", "fanout", "ledger"}

// checkEmbedded refuses processes that would each have a broker or a Redis of their own, and never meet.
func (c *Config) checkEmbedded(p *Problems) {
	if len(c.Kafka.Brokers) == 0 {
		if c.DataDir == "" {
			p.add("data_dir", "is empty; the embedded Kafka needs a folder, or set kafka.brokers")
		}
		for _, role := range Roles {
			if !c.Runs(role) {
				p.add("roles", "lacks %s, but without kafka.brokers this process is alone; leave roles out, or set kafka.brokers", role)
				return
			}
		}
	}
	runs := 0
	for _, role := range sharing {
		if c.Runs(role) {
			runs++
		}
	}
	if len(c.Redis.Addresses) == 0 && runs != 0 && runs != len(sharing) {
		p.add("redis.addresses", "is left out, but %s share one Redis and do not all run in this process; set it", strings.Join(sharing, ", "))
	}
}

func (k *Kafka) check(p *Problems) {
	for i, b := range k.Brokers {
		p.address("kafka.brokers["+strconv.Itoa(i)+"]", b)
	}
	if !topicPrefix.MatchString(k.Prefix) {
		p.add("kafka.prefix", "is %q; must be at most 64 letters, digits and ._-", k.Prefix)
	}
	k.TLS.check(p, "kafka.tls")
	k.SASL.check(p)
	if len(k.Brokers) == 0 && (k.TLS.Enabled || k.SASL.Mechanism != "") {
		p.add("kafka.brokers", "is left out, so Kafka is embedded and has neither TLS nor SASL; set it, or leave those out")
	}
}

func (t *ClientTLS) check(p *Problems, path string) {
	p.both(path, "cert_file", t.CertFile, "key_file", t.KeyFile)
	if !t.Enabled && (*t != ClientTLS{}) {
		p.add(path+".enabled", "is false, but other keys of %s are given; set it to true, or leave them out", path)
	}
}

func (s *SASL) check(p *Problems) {
	user := s.Username != "" || s.Password != "" || s.PasswordFile != ""
	token := s.Token != "" || s.TokenFile != "" || s.TokenURL != ""
	client := s.ClientID != "" || s.ClientSecret != "" || s.ClientSecretFile != "" || len(s.Scopes) > 0
	switch s.Mechanism {
	case "":
		if user || token || client {
			p.add("kafka.sasl.mechanism", "is missing; must be one of %s", strings.Join(mechanisms, ", "))
		}
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		if s.Username == "" || s.Password == "" && s.PasswordFile == "" {
			p.add("kafka.sasl", "%s needs username, and password or password_file", s.Mechanism)
		}
		if token || client {
			p.add("kafka.sasl", "has keys that are for OAUTHBEARER, and the mechanism is %s; leave them out", s.Mechanism)
		}
	case "OAUTHBEARER":
		s.checkOAuth(p, client)
		if user {
			p.add("kafka.sasl", "has a username or password, and the mechanism is OAUTHBEARER; leave them out")
		}
	default:
		p.oneOf("kafka.sasl.mechanism", s.Mechanism, mechanisms...)
	}
}

var mechanisms = []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"}

func (s *SASL) checkOAuth(p *Problems, client bool) {
	static := s.Token != "" || s.TokenFile != ""
	switch {
	case static == (s.TokenURL != ""):
		p.add("kafka.sasl", "OAUTHBEARER needs either token or token_file, or token_url with client_id and client_secret")
	case static && client:
		p.add("kafka.sasl", "has client_id, client_secret or scopes, which go with token_url, beside a token; leave one out")
	case s.TokenURL != "" && (s.ClientID == "" || s.ClientSecret == "" && s.ClientSecretFile == ""):
		p.add("kafka.sasl", "token_url needs client_id, and client_secret or client_secret_file")
	}
	p.url("kafka.sasl.token_url", s.TokenURL)
}

func (r *Redis) check(p *Problems) {
	for i, a := range r.Addresses {
		p.address("redis.addresses["+strconv.Itoa(i)+"]", a)
	}
	switch {
	case r.Cluster && len(r.Addresses) == 0:
		p.add("redis.addresses", "is left out, but redis.cluster is true; give the address of at least one node")
	case !r.Cluster && len(r.Addresses) > 1:
		p.add("redis.addresses", "has %d addresses for a single server; give one, or set redis.cluster: true", len(r.Addresses))
	}
	if strings.ContainsAny(r.Prefix, `{}*?[]\`) {
		// Braces decide a key's cluster slot, the others are patterns of SCAN.
		p.add("redis.prefix", `is %q; must not contain any of {}*?[]\`, r.Prefix)
	}
	r.TLS.check(p, "redis.tls")
	secured := r.Username != "" || r.Password != "" || r.PasswordFile != "" || r.TLS.Enabled
	if len(r.Addresses) == 0 && secured {
		p.add("redis.addresses", "is left out, so Redis is embedded and has neither user nor TLS; set it, or leave those out")
	}
}

// oneOf refuses a value that is not in the list.
func (p *Problems) oneOf(path, value string, list ...string) {
	if !slices.Contains(list, value) {
		p.add(path, "is %q; must be one of %s", value, strings.Join(list, ", "))
	}
}

// each refuses values that are not in the list, or there twice.
func (p *Problems) each(path string, values, list []string) {
	for i, v := range values {
		at := path + "[" + strconv.Itoa(i) + "]"
		p.oneOf(at, v, list...)
		if slices.Contains(values[:i], v) {
			p.add(at, "%q is there twice; leave one out", v)
		}
	}
}

func (p *Problems) both(path, a, valueA, b, valueB string) {
	if (valueA == "") != (valueB == "") {
		p.add(path, "has only one of %s and %s; give both or neither", a, b)
	}
}

func (p *Problems) between(path string, d, least, most time.Duration) {
	if d < least || d > most {
		p.add(path, "is %s; must be %s to %s", d, least, most)
	}
}

func (p *Problems) address(path, value string) {
	host, port, err := net.SplitHostPort(value)
	n, notPort := strconv.ParseUint(port, 10, 16)
	// To listen on, ":8080" is every address and port 0 any that is free.
	listens := path == "listen"
	if err != nil || notPort != nil || !listens && (n == 0 || host == "") {
		p.add(path, `is %q; must be host:port, such as "127.0.0.1:8080"`, value)
	}
}

// url refuses what is neither empty, nor https, nor plain http to this machine.
func (p *Problems) url(path, value string) {
	if value == "" {
		return
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		// Not the value: it might hold a password.
		p.add(path, "must be an https URL without a user; plain http is for a loopback address only")
	}
}

// loopback says that the host is this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
