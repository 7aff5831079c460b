package config

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

const envPrefix = "BELFRY_"

// otherVariables begin with BELFRY_ too, but are not part of the configuration: those of the command line and of tests
// (failpoint/ and the soak's clocks too), and the links that Kubernetes puts into every container for a service named belfry or belfry-something.
var otherVariables = regexp.MustCompile(`^BELFRY_(SERVER|KEY|CONFIG|FAILPOINT|CLOCK_SKEW|TEST_.*|` +
	`(.+_)?SERVICE_(HOST|PORT(_.+)?)|(.+_)?PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// override puts the BELFRY_ variables over what the file says. Each is parsed alone, so that a fault names it.
func (l *loader) override() {
	known := variables()
	for _, name := range slices.Sorted(maps.Keys(l.environ)) {
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		if !slices.Contains(known, name) {
			if !otherVariables.MatchString(name) {
				l.problems.add(name, "%s", unknownVariable(name, known))
			}
			continue
		}
		if err := env.ParseWithOptions(l.config, options(map[string]string{name: l.environ[name]})); err != nil {
			var wrong env.ParseError
			if errors.As(err, &wrong) {
				l.problems.add(name, "must be %s", wanted(wrong.Type))
				continue
			}
			l.problems.add(name, "cannot be read: %s", err)
		}
	}
}

func options(environ map[string]string) env.Options {
	return env.Options{Environment: environ, Prefix: envPrefix}
}

// variables are the names of all BELFRY_ variables of the configuration.
func variables() []string {
	params, err := env.GetFieldParamsWithOptions(Default(), options(nil))
	if err != nil {
		panic("config: the env tags of Config: " + err.Error())
	}
	var names []string
	for _, p := range params {
		if p.OwnKey != "" {
			names = append(names, p.Key)
		}
	}
	return names
}

func unknownVariable(name string, known []string) string {
	text := unknown("variable", name, known)
	if strings.HasPrefix(name, envPrefix+"APP") {
		return `unknown variable; apps are not set by variables: refer to one in the file, as in key_id: "${KEY_ID}"`
	}
	if strings.Contains(text, "known here") {
		return "unknown variable; docs/configuration.md lists those there are"
	}
	return text
}
