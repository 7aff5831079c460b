package producer

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/events"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	maxMessage    = 64 << 10
	maxRecipients = 100
	// maxDeliveries bounds what one call may become, some users having many devices: 500 of 64 KiB are half of writeRoom.
	maxDeliveries = 500
)

// Recipient is a device, or all devices of a user.
type Recipient struct {
	User   string `json:"user,omitempty" doc:"Exactly one of user and device" example:"ada"`
	Device string `json:"device,omitempty"`
}

// Recipients is one recipient, or a list of them.
type Recipients []Recipient

// UnmarshalJSON reads either form.
func (r *Recipients) UnmarshalJSON(text []byte) error {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		return json.Unmarshal(text, (*[]Recipient)(r))
	}
	*r = make(Recipients, 1)
	return json.Unmarshal(text, &(*r)[0])
}

// Schema tells huma of either form.
func (Recipients) Schema(r huma.Registry) *huma.Schema {
	one := r.Schema(reflect.TypeFor[Recipient](), true, "Recipient")
	least, most := 1, maxRecipients
	return &huma.Schema{
		Description: "Users and devices: one, or a list of at most 100",
		OneOf:       []*huma.Schema{one, {Type: huma.TypeArray, Items: one, MinItems: &least, MaxItems: &most}},
	}
}

// MessageCall is a transactional message and whom it is for.
type MessageCall struct {
	To      Recipients        `json:"to"`
	Message message.Message   `json:"message"`
	Data    map[string]string `json:"data,omitempty" doc:"What the message's templates name as data.KEY" example:"{\"code\":\"271828\"}"`
}

// MessageAnswer says what the call became.
type MessageAnswer struct {
	ID         string         `json:"id" doc:"The message's id, made from the Idempotency-Key if there was one"`
	Deliveries map[string]int `json:"deliveries" doc:"By platform"`
	Unknown    []Recipient    `json:"unknown,omitempty" doc:"Recipients that have no device"`
	Rendered   []Rendered     `json:"rendered,omitempty" doc:"With dry_run=true: what each device would show"`
}

// Rendered is the message as one device would show it.
type Rendered struct {
	Device   string `json:"device"`
	Platform string `json:"platform"`
	Locale   string `json:"locale,omitempty"`
	message.Content
	Data map[string]string `json:"data,omitempty"`
}

type messageInput struct {
	DryRun bool `query:"dry_run" doc:"Render for each device and send nothing"`
	Body   MessageCall
}

type messageOutput struct {
	Status int
	Body   MessageAnswer
}

func (s *Server) messageRoutes(api huma.API) {
	op := operation(http.MethodPost, "/messages", "send-message", ScopeSend, "Send a transactional message",
		"Sends a message now, on the urgent lanes, to at most 100 users and devices. 202 once Kafka has all its deliveries.",
		http.StatusAccepted, http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests)
	op.MaxBodyBytes = maxMessage
	huma.Register(api, op, s.sendMessage)
}

func (s *Server) sendMessage(ctx context.Context, in *messageInput) (*messageOutput, error) {
	compiled, err := in.Body.compile()
	if err != nil {
		return nil, err
	}
	app, now := appOf(ctx), s.now()
	devices, unknown, err := s.recipients(ctx, app, in.Body.To)
	if err != nil {
		return nil, err
	}
	answer := MessageAnswer{ID: derive(ctx, "message"), Deliveries: map[string]int{}, Unknown: unknown}
	records := make([]*kgo.Record, 0, len(devices))
	for _, d := range devices {
		answer.Deliveries[schemas.PlatformName(d.Platform)]++
		vars := message.Variables(compiled.Names(), d, in.Body.variables())
		if in.DryRun {
			answer.Rendered = append(answer.Rendered, rendered(compiled, d, vars))
			continue
		}
		value, err := proto.Marshal(delivery(answer.ID, d, compiled, vars, now))
		if err != nil {
			return nil, invalid("data", fmt.Errorf("cannot be encoded: %w", err))
		}
		records = append(records, &kgo.Record{
			Topic: s.options.Kafka.Topic(schemas.TopicSend(d.Platform, pb.Class_CLASS_URGENT)),
			Key:   schemas.Key(app, d.Id), Value: value,
		})
	}
	if in.DryRun {
		return &messageOutput{http.StatusOK, answer}, nil
	}
	if err := s.write(ctx, records...); err != nil {
		return nil, err
	}
	return &messageOutput{http.StatusAccepted, answer}, nil
}

// compile checks the call.
func (c *MessageCall) compile() (*message.Compiled, error) {
	var f faults
	for i, to := range c.To {
		field := fmt.Sprintf("to[%d]", i)
		if (to.User == "") == (to.Device == "") {
			f.add(field, "must have exactly one of user and device")
			continue
		}
		f.add(field, events.IdentityFault(cmp.Or(to.User, to.Device)))
	}
	p, err := c.Message.Proto()
	var compiled *message.Compiled
	if err == nil {
		compiled, err = message.Compile(p, message.Transactional)
	}
	if err != nil {
		f.in("message", err)
	}
	if len(f.found) > 0 {
		return nil, invalid("", f.found)
	}
	return compiled, nil
}

// in keeps what another package found wrong with what lies in a field.
func (f *faults) in(field string, err error) {
	problems, ok := errors.AsType[message.Problems](err)
	if !ok {
		f.add(field, err.Error())
		return
	}
	for _, fault := range faultsOf(field, problems) {
		f.add(fault.Field, fault.Text)
	}
}

func (c *MessageCall) variables() map[string]string {
	vars := make(map[string]string, len(c.Data))
	for name, value := range c.Data {
		vars["data."+name] = value
	}
	return vars
}

// recipients finds the devices that are meant, each once, and who has none.
func (s *Server) recipients(ctx context.Context, app string, to []Recipient) ([]*pb.Device, []Recipient, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	found := map[string]*pb.Device{}
	var unknown []Recipient
	for _, r := range to {
		var devices []*pb.Device
		var err error
		if r.User != "" {
			devices, err = s.registry.UserDevices(ctx, app, r.User)
		} else {
			devices, err = s.registry.Devices(ctx, app, []string{r.Device})
		}
		if err != nil {
			return nil, nil, s.redisProblem(err)
		}
		if len(devices) == 0 {
			unknown = append(unknown, r)
		}
		for _, d := range devices {
			found[d.Id] = d
		}
	}
	switch {
	case len(found) == 0:
		return nil, nil, problem(http.StatusNotFound, "not-found",
			"None of the recipients has a device. Register one first; one registered just now is known within a second.")
	case len(found) > maxDeliveries:
		return nil, nil, invalid("to", fmt.Errorf("has %d devices; at most %d are allowed in one call: split it", len(found), maxDeliveries))
	}
	// In one order, so that a call made again writes the same.
	return slices.SortedFunc(maps.Values(found), func(a, b *pb.Device) int { return cmp.Compare(a.Id, b.Id) }), unknown, nil
}

func delivery(id string, d *pb.Device, c *message.Compiled, vars map[string]string, now time.Time) *pb.Delivery {
	deliveryID := schemas.DeliveryID(d.App, id, d.Id, 0)
	return &pb.Delivery{
		Id: deliveryID[:], App: d.App, Run: schemas.RunMessages, Device: d.Id, Class: pb.Class_CLASS_URGENT,
		Target: d.Target, Locale: d.Locale, Variables: vars, Message: c.Message(),
		CreatedAt: now.UnixMilli(), ExpiresAt: now.Add(c.TTL()).UnixMilli(), RegisteredAt: d.RegisteredAt,
	}
}

func rendered(c *message.Compiled, d *pb.Device, vars map[string]string) Rendered {
	return Rendered{
		Device: d.Id, Platform: schemas.PlatformName(d.Platform), Locale: d.Locale,
		Content: c.Content(d.Locale, vars), Data: c.Data(vars),
	}
}
