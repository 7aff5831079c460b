package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Every command says what it is for, in words of its own.
func TestHelp(t *testing.T) {
	t.Parallel()
	seen := 0
	var walk func(path []string)
	walk = func(path []string) {
		f := command(t, environ(), append(path, "--help")...)
		if f.code != 0 || f.out == "" || f.log != "" {
			t.Errorf("belfry %v --help: exit status %d\n%s%s", path, f.code, f.out, f.log)
		}
		seen++
		if !strings.Contains(f.out, "[command]") {
			return
		}
		for _, name := range subcommands(t, path) {
			walk(append(path[:len(path):len(path)], name))
		}
	}
	walk(nil)
	if seen < 20 {
		t.Errorf("only %d commands were found", seen)
	}
}

// subcommands are what the shell would complete.
func subcommands(t *testing.T, path []string) (names []string) {
	f := command(t, environ(), append(append([]string{"__complete"}, path...), "")...)
	for line := range strings.Lines(f.out) {
		name, _, described := strings.Cut(line, "\t")
		if described && name != "help" && name != "completion" && !strings.HasPrefix(name, "-") {
			names = append(names, name)
		}
	}
	return names
}

func TestVersion(t *testing.T) {
	t.Parallel()
	var v struct {
		Version, Go string
		Schema      uint32
	}
	f := command(t, environ(), "version", "--json")
	if err := json.Unmarshal([]byte(f.out), &v); err != nil || v.Version == "" || v.Go != runtime.Version() || v.Schema == 0 {
		t.Errorf("version --json: %v: %s", err, f.out)
	}
	if strings.Count(f.out, "\n") != 1 {
		t.Errorf("version --json is not one line: %q", f.out)
	}
}

// The completion of each shell is a script that the shell itself reads without fault, and what it asks belfry for comes.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		f := command(t, environ(), "completion", shell)
		if f.code != 0 || !strings.Contains(f.out, "belfry") {
			t.Errorf("completion %s: exit status %d\n%s", shell, f.code, f.log)
			continue
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("%s is not here, so its script is not read by it", shell)
			continue
		}
		cmd := exec.CommandContext(t.Context(), path, "-n")
		cmd.Stdin = strings.NewReader(f.out)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s refuses its script: %v\n%s", shell, err, out)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"__complete", "camp"}, "campaign"},
		{[]string{"__complete", "campaign", "pau"}, "pause"},
		{[]string{"__complete", "serve", "--ro"}, "--roles"},
	} {
		if f := command(t, environ(), c.args...); f.code != 0 || !strings.Contains(f.out, c.want) {
			t.Errorf("belfry %v: exit status %d, %q", c.args, f.code, f.out)
		}
	}
}

// A command that cannot do what it is asked says so, and what to do, on standard error, and fails.
func TestCommandsThatFail(t *testing.T) {
	t.Parallel()
	nobody := "BELFRY_SERVER=http://" + freeAddress(t)
	missing := filepath.Join(t.TempDir(), "missing.json")
	for _, c := range []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"unknown command", nil, []string{"sned"}, `unknown command "sned"`},
		{"unknown flag", nil, []string{"serve", "--rolls"}, "unknown flag: --rolls"},
		{"unknown role", nil, []string{"serve", "--roles", "senders.sms"}, "senders.sms"},
		{"no key", []string{nobody}, []string{"campaign", "list"}, "set BELFRY_KEY"},
		{"nobody serves", []string{nobody, "BELFRY_KEY=k"}, []string{"campaign", "list"}, "connection refused"},
		{"missing file", []string{nobody, "BELFRY_KEY=k"}, []string{"send", missing}, "missing.json: no such file"},
		{"missing configuration", nil, []string{"serve", "--config", missing}, "missing.json"},
		{"topics of the embedded Kafka", nil, []string{"topics", "plan"}, "kafka.brokers is not set"},
		{"rebuild of the embedded Redis", nil, []string{"rebuild"}, "redis.addresses is not set"},
	} {
		f := command(t, environ(c.env...), c.args...)
		if f.code == 0 || !strings.Contains(f.log, c.want) {
			t.Errorf("%s: exit status %d, and %q is not in %q", c.name, f.code, c.want, f.log)
		}
	}
}
