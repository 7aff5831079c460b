package config

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"
)

// Level is how bad a finding is.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is one thing that was looked at.
type Finding struct {
	Level Level `json:"level"`
	// What was looked at: a key of the configuration, or a host.
	What   string `json:"what"`
	Detail string `json:"detail"`
	// Mend says what to do. Empty for OK.
	Mend string `json:"mend,omitempty"`
}

// report gathers findings.
type report struct{ findings []Finding }

func (r *report) ok(what, format string, args ...any) {
	r.findings = append(r.findings, Finding{Level: OK, What: what, Detail: fmt.Sprintf(format, args...)})
}

func (r *report) warn(what, mend, format string, args ...any) {
	r.findings = append(r.findings, Finding{Warn, what, fmt.Sprintf(format, args...), mend})
}

func (r *report) fail(what, mend, format string, args ...any) {
	r.findings = append(r.findings, Finding{Fail, what, fmt.Sprintf(format, args...), mend})
}

// checkTimeout bounds each of the parts that wait for others.
const checkTimeout = 10 * time.Second

// Check looks behind a valid configuration, as far as this process's roles need it: files and credentials, Kafka and its
// topics, Redis, and the providers. It changes nothing. The findings come in that order.
func Check(ctx context.Context, c *Config) []Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	parts := []func(context.Context, *Config, *report){checkFiles, checkCredentials, checkKafka, checkRedis, checkProviders}
	reports := make([]report, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { part(ctx, c, &reports[i]) })
	}
	wg.Wait()
	var all []Finding
	for _, r := range reports {
		all = append(all, r.findings...)
	}
	return all
}

// checkFiles opens every file that the configuration names.
func checkFiles(_ context.Context, c *Config, r *report) {
	walk(reflect.ValueOf(c), "", func(f field) {
		if !strings.HasSuffix(f.path, "_file") || f.value.String() == "" || !c.needs(f.path) {
			return
		}
		checkFile(r, f.path, f.value.String())
		if strings.HasSuffix(f.path, "ca_file") {
			if _, err := loadCA(f.value.String()); err != nil {
				r.fail(f.path, "give certificates as PEM: -----BEGIN CERTIFICATE-----", "%s", err)
			}
		}
	})
}

// needs says whether this process reads the key: the providers' only where their lanes run.
func (c *Config) needs(path string) bool {
	for _, platform := range []string{"apns", "fcm", "webpush"} {
		if strings.HasPrefix(path, "apps.") && strings.Contains(path, "."+platform+".") {
			return c.Runs("senders." + platform)
		}
	}
	return true
}

func checkFile(r *report, what, path string) {
	f, err := os.Open(path)
	if err != nil {
		r.fail(what, "put the file there, readable for the user that Belfry runs as, or correct the path", "%s", err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	switch public := strings.HasSuffix(what, "ca_file") || strings.HasSuffix(what, "cert_file"); {
	case err != nil:
		r.fail(what, "correct the path", "%s", err)
	case info.IsDir():
		r.fail(what, "give a file", "%s is a folder", path)
	case !public && info.Mode().Perm()&0o004 != 0:
		r.warn(what, "chmod o-rwx "+path, "%s can be read by every user of this machine", path)
	default:
		r.ok(what, "%s is readable", path)
	}
}
