package belfry_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/belfry/belfry/config"
	"github.com/belfry/belfry/simulator"
)

// compose is as much of docker-compose.yml as these tests look at. That the file is valid is checked against the compose
// specification by scripts/lint.
type compose struct {
	Services map[string]service `yaml:"services"`
	Volumes  map[string]any     `yaml:"volumes"`
}

type service struct {
	Image       string                    `yaml:"image"`
	Build       string                    `yaml:"build"`
	Command     []string                  `yaml:"command"`
	Environment map[string]any            `yaml:"environment"`
	DependsOn   map[string]map[string]any `yaml:"depends_on"`
	Volumes     []string                  `yaml:"volumes"`
	Healthcheck map[string]any            `yaml:"healthcheck"`
}

func readCompose(t *testing.T) compose {
	t.Helper()
	b, err := os.ReadFile("docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var c compose
	if err := yaml.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestComposeNamesOnlyWhatIsThere(t *testing.T) {
	c := readCompose(t)
	for name, s := range c.Services {
		_, tag, pinned := strings.Cut(s.Image, ":")
		if !pinned || tag == "latest" {
			t.Errorf("%s: image %q is not pinned to a version", name, s.Image)
		}
		for other, condition := range s.DependsOn {
			needed, known := c.Services[other]
			if !known {
				t.Errorf("%s depends on %s, which is no service", name, other)
			}
			if condition["condition"] == "service_healthy" && needed.Healthcheck == nil {
				t.Errorf("%s waits for %s to be healthy, which has no health check", name, other)
			}
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(source, "./") {
				if _, err := os.Stat(source); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			} else if _, known := c.Volumes[source]; !known {
				t.Errorf("%s: volume %s is not declared", name, source)
			}
		}
	}
}

// Each role runs in one service, under an instance name of its own: two processes of one name would end each other's
// transactions.
func TestComposeRunsEachRoleOnce(t *testing.T) {
	var roles []string
	instances := map[any]string{}
	for name, s := range readCompose(t).Services {
		if len(s.Command) != 3 || s.Command[0] != "serve" {
			continue
		}
		roles = append(roles, strings.Split(s.Command[2], ",")...)
		instance := s.Environment["BELFRY_INSTANCE"]
		if other, taken := instances[instance]; taken || instance == nil {
			t.Errorf("%s: instance %v, and %q has it too", name, instance, other)
		}
		instances[instance] = name
	}
	slices.Sort(roles)
	if want := slices.Sorted(slices.Values(config.Roles)); !slices.Equal(roles, want) {
		t.Errorf("roles %v, want each of %v", roles, want)
	}
}

func TestComposeCommandsAreBelfrys(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "belfry")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/belfry").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, s := range readCompose(t).Services {
		if s.Build == "" {
			continue
		}
		// With --help the flags before it are read, and nothing is done.
		out, err := exec.CommandContext(t.Context(), binary, append(s.Command, "--help")...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "belfry "+s.Command[0]) {
			t.Errorf("%s: belfry %s: %v\n%s", name, strings.Join(s.Command, " "), err, out)
		}
	}
}

// The credentials in the compose configuration are those that the simulator accepts.
func TestComposeConfigurationIsTheSimulators(t *testing.T) {
	s, err := simulator.Start(simulator.Options{Host: "simulator", Population: simulator.Population{Seed: 1, Devices: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := s.Config("/var/lib/belfry")
	// Here it has whatever ports are free; there, those from 9440 on, in the order of the services.
	for service, port := range map[simulator.Service]string{
		simulator.APNs: "9440", simulator.APNsSandbox: "9441", simulator.FCM: "9442", simulator.Chrome: "9444",
		simulator.Mozilla: "9445", simulator.Apple: "9446", simulator.Windows: "9447",
	} {
		want = strings.ReplaceAll(want, s.Address(service), "simulator:"+port)
	}
	const file = "deploy/compose/belfry.yaml"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := apps(t, b), apps(t, []byte(want)); !reflect.DeepEqual(got, want) {
		t.Errorf("%s has the apps\n%v\nand the simulator\n%v", file, got, want)
	}
	for name, s := range readCompose(t).Services {
		if len(s.Command) == 0 || s.Command[0] != "serve" {
			continue
		}
		c, err := config.Load(file, []string{"BELFRY_LISTEN=0.0.0.0:8080", "BELFRY_INSTANCE=" + s.Environment["BELFRY_INSTANCE"].(string)})
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Kafka.Brokers) == 0 || len(c.Redis.Addresses) == 0 {
			t.Errorf("%s would run on an embedded Kafka or Redis", name)
		}
	}
}

func apps(t *testing.T, document []byte) any {
	t.Helper()
	var c map[string]any
	if err := yaml.Unmarshal(document, &c); err != nil {
		t.Fatal(err)
	}
	return c["apps"]
}
