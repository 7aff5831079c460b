package producer

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/stream"
)

const (
	// registryPatience is how long a launch waits for devices that Kafka has and the registry has not.
	registryPatience = 5 * time.Second
	// kafkaPatience is how long it waits for Kafka to say how far the registry is.
	kafkaPatience = time.Second
)

// awaitRegistry has a launch wait for devices that were accepted before it, and says of a registry that is so far behind that patience
// ends whom the campaign will miss: the audience is whom it knows.
func (s *Server) awaitRegistry(ctx context.Context, app, id string) (warning string) {
	// A Kafka that is away will not take the launch either, and who is refused should not wait for it longer.
	asked, cancel := context.WithTimeout(ctx, kafkaPatience)
	defer cancel()
	if stream.Ping(asked, s.writer.client) != nil {
		return "Kafka did not tell whether the registry had all devices at its launch: it may miss those that were registered last"
	}
	waiting, cancel := context.WithTimeout(ctx, registryPatience)
	defer cancel()
	err := registry.CaughtUp(waiting, s.options.Kafka, s.writer.client)
	if err == nil {
		return ""
	}
	s.log.Warn("the registry has not all devices in time for a campaign's launch; launched now, it misses those that are not there yet",
		"campaign", app+"/"+id, "err", err)
	counting, cancel := context.WithTimeout(ctx, kafkaPatience)
	defer cancel()
	left, _, err := registry.NewLag(s.options.Kafka, s.writer.client).Read(counting)
	if err != nil {
		return "at its launch the registry was behind by nobody knows how much: it may miss devices that were registered last"
	}
	return fmt.Sprintf("at its launch the registry was about %d changes of devices behind: it may miss devices that were registered last", left)
}

// incomplete is what a launch is told that must miss nobody. It may be asked for again.
func incomplete(warning string) *Problem {
	p := problem(http.StatusConflict, "incomplete", "Not launched, as require_complete says: "+warning+". Wait as Retry-After says and send it again.")
	p.retryAfter = retryAfter
	return p
}
