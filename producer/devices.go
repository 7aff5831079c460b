package producer

import (
	"context"
	"errors"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
)

// maxDevice bounds a device's JSON, as one body and as one line.
const maxDevice = 64 << 10

// Accepted says that Kafka has it; it takes effect as soon as the registry has read it, usually within a second.
type Accepted struct {
	ID     string `json:"id"`
	Status string `json:"status" example:"accepted"`
}

type acceptedOutput struct{ Body Accepted }

type devicePut struct {
	DevicePath
	Body Device
}

type deviceOutput struct{ Body ShownDevice }

// BulkDevice is one line of POST /v1/devices/bulk.
type BulkDevice struct {
	Op string `json:"op,omitempty" doc:"put (default) or delete, which needs the id only"`
	Device
}

func (s *Server) deviceRoutes(api huma.API) {
	put := operation(http.MethodPut, "/devices/{id}", "put-device", ScopeManage, "Register a device",
		"Registers a device or replaces all that is known of it. 202 once Kafka has it; it is in use when the registry has read it, usually within a second.",
		http.StatusAccepted, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests)
	put.MaxBodyBytes = maxDevice
	huma.Register(api, put, s.putDevice)
	huma.Register(api, operation(http.MethodGet, "/devices/{id}", "get-device", ScopeRead, "Show a device",
		"Shows a device as the registry has it. Tokens and endpoints are masked.",
		http.StatusOK, http.StatusNotFound), s.getDevice)
	huma.Register(api, operation(http.MethodDelete, "/devices/{id}", "delete-device", ScopeManage, "Remove a device",
		"Removes a device, if there is one. What is on its way to it may still arrive.",
		http.StatusAccepted, http.StatusTooManyRequests), s.deleteDevice)
	s.bulkRoute(api, "/devices/bulk", schemas.TopicDevices, "bulk-devices", ScopeManage, "Register and remove many devices",
		"Takes one device per line (with op: put or delete), without a bound on their number.", reflect.TypeFor[BulkDevice](), s.deviceLine)
}

func (s *Server) putDevice(ctx context.Context, in *devicePut) (*acceptedOutput, error) {
	if in.Body.ID != "" && in.Body.ID != in.ID {
		return nil, invalid("id", errors.New("differs from the id in the path: leave it out"))
	}
	in.Body.ID = in.ID
	record, problems := s.registration(appOf(ctx), &in.Body)
	if len(problems) > 0 {
		return nil, invalid("", problems)
	}
	if err := s.write(ctx, record); err != nil {
		return nil, err
	}
	return &acceptedOutput{Accepted{in.ID, "accepted"}}, nil
}

func (s *Server) getDevice(ctx context.Context, in *DevicePath) (*deviceOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	d, err := s.registry.Get(ctx, appOf(ctx), in.ID)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, problem(http.StatusNotFound, "not-found", "The app has no device with this id. If it was registered just now, try again in a second.")
	}
	if err != nil {
		return nil, s.redisProblem(err)
	}
	return &deviceOutput{deviceForm(d)}, nil
}

func (s *Server) deleteDevice(ctx context.Context, in *DevicePath) (*acceptedOutput, error) {
	if fault := events.IdentityFault(in.ID); fault != "" {
		return nil, invalid("id", errors.New(fault))
	}
	if err := s.write(ctx, s.removal(appOf(ctx), in.ID)); err != nil {
		return nil, err
	}
	return &acceptedOutput{Accepted{in.ID, "accepted"}}, nil
}

// registration is the record that registers a device.
func (s *Server) registration(app string, d *Device) (*kgo.Record, message.Problems) {
	device, problems := d.proto(app, s.options.AllowHosts[app], s.now())
	if len(problems) > 0 {
		return nil, problems
	}
	value, err := deviceRecord(device)
	if err != nil {
		// Only text that is not UTF-8 can fail here, and JSON has none.
		return nil, message.Problems{{Text: "cannot be encoded: " + err.Error()}}
	}
	return &kgo.Record{
		Topic: s.options.Kafka.Topic(schemas.TopicDevices), Key: schemas.DeviceKey(app, d.ID), Value: value,
	}, nil
}

// removal is the tombstone that removes a device.
func (s *Server) removal(app, id string) *kgo.Record {
	return &kgo.Record{Topic: s.options.Kafka.Topic(schemas.TopicDevices), Key: schemas.DeviceKey(app, id)}
}

// deviceLine reads one line of a bulk stream.
func (s *Server) deviceLine(b *batch, l *line, text []byte) {
	if b.quick.readDevice(text, s.options.AllowHosts[b.app]) {
		d := &b.quick.device
		l.id, l.record.Key = d.id, b.key(d.id)
		if string(d.op) != "delete" {
			begin := len(b.room)
			b.room = b.quick.appendDevice(b.room, b.app, b.now.UnixMilli())
			l.record.Value = b.take(begin)
		}
		return
	}
	var d BulkDevice
	if problems := decodeLine(text, &d); len(problems) > 0 {
		l.refuse(d.ID, problems)
		return
	}
	record, problems := s.changed(b.app, &d)
	if len(problems) > 0 {
		l.refuse(d.ID, problems)
		return
	}
	l.id, l.record = []byte(d.ID), *record
}

// changed is the record of what a line asks for.
func (s *Server) changed(app string, d *BulkDevice) (*kgo.Record, message.Problems) {
	switch d.Op {
	case "", "put":
		return s.registration(app, &d.Device)
	case "delete":
		if fault := events.IdentityFault(d.ID); fault != "" {
			return nil, message.Problems{{Field: "id", Text: fault}}
		}
		return s.removal(app, d.ID), nil
	}
	return nil, message.Problems{{Field: "op", Text: "must be put or delete"}}
}
