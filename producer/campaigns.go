package producer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	// decisionTimeout is how long an action waits for the launcher before it answers that it is not decided yet.
	decisionTimeout = 3 * time.Second
	maxReason       = 4 << 10
	// maxOpenCampaigns bounds what the campaigns of all apps that have not ended weigh, and half of it those of one: every process
	// that sends holds them in memory, where they take some four times as much.
	maxOpenCampaigns = 32 << 20
	// leastCampaign is what the smallest weighs.
	leastCampaign = 4 << 10
	// undecidedFor is how long a campaign that was asked for counts though the launcher has not said anything.
	undecidedFor = 10 * time.Minute
)

func campaignWeight(encoded int) int64 { return leastCampaign + int64(encoded) }

type campaignInput struct{ Body CampaignDefinition }

type campaignOutput struct {
	Status int
	Body   Campaign
}

type actionInput struct {
	CampaignPath
	Body *Reason
}

// Reason is why somebody stops a campaign, or how it is launched.
type Reason struct {
	Reason          string `json:"reason,omitempty" maxLength:"500" doc:"For people"`
	RequireComplete bool   `json:"require_complete,omitempty" doc:"Of a launch: refuse it (409) when the registry has not all devices in time that were accepted before"`
}

type rateInput struct {
	CampaignPath
	Body Rate
}

// Rate is a campaign's new pace.
type Rate struct {
	PerSecond float64 `json:"per_second" minimum:"0" maximum:"10000000" doc:"Deliveries per second, over all platforms. 0: as fast as the lanes drain"`
}

type listInput struct {
	State string `query:"state" enum:"draft,scheduled,running,paused,cancelled,finished,expired" doc:"Only those in this state"`
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	After string `query:"after" doc:"Where the last page ended: its next"`
}

type listOutput struct{ Body CampaignList }

// CampaignList is one page of campaigns, newest first.
type CampaignList struct {
	Campaigns []Campaign `json:"campaigns"`
	Next      string     `json:"next,omitempty" doc:"Send it as after for the next page"`
}

func (s *Server) campaignRoutes(api huma.API) {
	create := operation(http.MethodPost, "/campaigns", "create-campaign", ScopeSend, "Create a campaign",
		"Creates a draft, and with launch: true launches it. 201 when that is done; 202 when it is on Kafka and the launcher has not decided it within three seconds.",
		http.StatusCreated, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests)
	create.MaxBodyBytes = maxCampaign
	huma.Register(api, create, s.createCampaign)
	huma.Register(api, operation(http.MethodGet, "/campaigns", "list-campaigns", ScopeRead, "List campaigns",
		"Lists the app's campaigns, newest first, without message and audience.", http.StatusOK), s.listCampaigns)
	huma.Register(api, operation(http.MethodGet, "/campaigns/{id}", "get-campaign", ScopeRead, "Show a campaign",
		"Shows a campaign and where it stands.", http.StatusOK, http.StatusNotFound), s.getCampaign)
	for _, a := range actions {
		op := operation(http.MethodPost, "/campaigns/{id}/"+a.name, a.name+"-campaign", ScopeSend, a.summary, a.description+
			" 200 when it is done, 409 when the campaign's state does not allow it, 202 when the launcher has not decided it within three seconds.",
			http.StatusOK, http.StatusNotFound, http.StatusConflict, http.StatusTooManyRequests)
		op.MaxBodyBytes = maxReason
		huma.Register(api, op, func(ctx context.Context, in *actionInput) (*campaignOutput, error) {
			return s.act(ctx, a, in)
		})
	}
	rate := operation(http.MethodPost, "/campaigns/{id}/rate", "rate-campaign", ScopeSend, "Change a campaign's rate",
		"Changes its pace, also while it runs, and for what is on the lanes' topics already. Answers like the other actions.",
		http.StatusOK, http.StatusNotFound, http.StatusConflict, http.StatusTooManyRequests)
	rate.MaxBodyBytes = maxReason
	huma.Register(api, rate, func(ctx context.Context, in *rateInput) (*campaignOutput, error) {
		return s.command(ctx, in.ID, &pb.Command{
			Id: derive(ctx, "rate"), Kind: &pb.Command_SetPace{SetPace: &pb.SetPace{PerSecond: in.Body.PerSecond}},
		}, false)
	})
	s.progressRoute(api)
}

// action is what somebody may ask of a campaign that exists.
type action struct {
	name, summary, description string
	fill                       func(c *pb.Command, reason string)
}

var actions = []action{
	{
		"launch", "Launch a campaign", "Runs a draft: now, or at its start_at. It waits, for at most five seconds, until the registry has all devices that were accepted before; what it could not wait for is the campaign's warning, or with require_complete it is refused.",
		func(c *pb.Command, _ string) { c.Kind = &pb.Command_Launch{Launch: &pb.Launch{}} },
	},
	{
		"pause", "Pause a campaign", "Sends no more of it until it is resumed. What a provider is being asked about goes through.",
		func(c *pb.Command, reason string) { c.Kind = &pb.Command_Pause{Pause: &pb.Pause{Reason: reason}} },
	},
	{
		"resume", "Resume a campaign", "Goes on with a paused campaign.",
		func(c *pb.Command, _ string) { c.Kind = &pb.Command_Resume{Resume: &pb.Resume{}} },
	},
	{
		"cancel", "Cancel a campaign", "Ends it for good. What a provider is being asked about goes through; the rest is counted as cancelled.",
		func(c *pb.Command, reason string) { c.Kind = &pb.Command_Cancel{Cancel: &pb.Cancel{Reason: reason}} },
	},
}

func (s *Server) createCampaign(ctx context.Context, in *campaignInput) (*campaignOutput, error) {
	definition, problems := in.Body.proto(s.now())
	if len(problems) > 0 {
		return nil, invalid("", problems)
	}
	app := appOf(ctx)
	id := cmp.Or(in.Body.ID, derive(ctx, "campaign"))
	commands := []*pb.Command{{Id: derive(ctx, "create"), Kind: &pb.Command_Create{Create: definition}}}
	if in.Body.Launch {
		commands = append(commands, &pb.Command{Id: derive(ctx, "launch"), Kind: &pb.Command_Launch{Launch: &pb.Launch{}}})
	}
	counted, err := s.countCampaign(ctx, app, id, definition)
	if err != nil {
		return nil, err
	}
	decided, err := s.decide(ctx, app, id, commands, in.Body.RequireComplete)
	if err == nil && !decided {
		time.AfterFunc(undecidedFor, counted) // a launcher that is away may still make them all
	} else {
		counted()
	}
	if err != nil {
		return nil, err
	}
	return s.acted(app, id, commands[len(commands)-1].Id, decided, http.StatusCreated)
}

// countCampaign counts one that is about to be created among the app's, until counted is called: it is in view then, or was refused.
func (s *Server) countCampaign(ctx context.Context, app, id string, definition *pb.Campaign) (counted func(), err error) {
	if before, err := s.follower.held(app, id); before != nil || err != nil {
		return func() {}, err // asked for once more: the launcher has the answer
	}
	p, err := s.open.take(ctx, app, campaignWeight(proto.Size(definition)))
	if err != nil {
		own, all := s.follower.weight(app)
		return nil, busy(time.Minute, fmt.Sprintf("The app's campaigns that have not ended take %d MiB, and all apps' %d of %d MiB; one app has at most half. "+
			"Launch or cancel drafts, or use filters in the place of lists of ids, and send it again.", own>>20, all>>20, s.open.whole>>20))
	}
	return p.release, nil
}

func (s *Server) act(ctx context.Context, a action, in *actionInput) (*campaignOutput, error) {
	var said Reason
	if in.Body != nil {
		said = *in.Body
	}
	command := &pb.Command{Id: derive(ctx, a.name)}
	a.fill(command, said.Reason)
	if said.RequireComplete && command.GetLaunch() == nil {
		return nil, invalid("require_complete", errors.New("goes with a launch"))
	}
	return s.command(ctx, in.ID, command, said.RequireComplete)
}

// command gives one to a campaign that exists, and answers with what came of it.
func (s *Server) command(ctx context.Context, id string, command *pb.Command, complete bool) (*campaignOutput, error) {
	app := appOf(ctx)
	if _, err := s.known(ctx, app, id); err != nil {
		return nil, err
	}
	decided, err := s.decide(ctx, app, id, []*pb.Command{command}, complete)
	if err != nil {
		return nil, err
	}
	return s.acted(app, id, command.Id, decided, http.StatusOK)
}

// decide writes commands and waits for the launcher's answer to each. It returns whether they were all carried out, and
// a problem when one was refused. A command that was decided before, being a retry, is answered the same. A launch that must be
// complete is refused when the registry has not all devices.
func (s *Server) decide(ctx context.Context, app, id string, commands []*pb.Command, complete bool) (bool, error) {
	answers := make([]<-chan *pb.Decision, len(commands))
	for i, c := range commands {
		var forget func()
		answers[i], forget = s.follower.await(c.Id)
		defer forget()
	}
	before, err := s.follower.held(app, id)
	if err != nil {
		return false, err
	}
	if all, err := decidedBefore(before, commands); all || err != nil {
		return all, err
	}
	if launch := commands[len(commands)-1].GetLaunch(); launch != nil {
		launch.Warning = s.awaitRegistry(ctx, app, id)
		if launch.Warning != "" && complete {
			return false, incomplete(launch.Warning)
		}
	}
	records := make([]*kgo.Record, len(commands))
	for i, c := range commands {
		c.App, c.Campaign, c.At = app, id, s.now().UnixMilli()
		value, err := proto.Marshal(c)
		if err != nil {
			return false, invalid("", err)
		}
		records[i] = &kgo.Record{Topic: s.options.Kafka.Topic(schemas.TopicCommands), Key: schemas.Key(app, id), Value: value}
	}
	if err := s.write(ctx, records...); err != nil {
		return false, err
	}
	deadline := time.NewTimer(decisionTimeout)
	defer deadline.Stop()
	for _, answer := range answers {
		select {
		case d := <-answer:
			if d.Refused != "" {
				return false, refused(d)
			}
		case <-deadline.C:
			return false, nil
		case <-ctx.Done():
			return false, nil
		}
	}
	return true, nil
}

// decidedBefore tells whether all commands are among the campaign's decisions, or which one was refused.
func decidedBefore(c *pb.Campaign, commands []*pb.Command) (bool, error) {
	left := len(commands)
	for _, command := range commands {
		for _, d := range c.GetDecisions() {
			if d.Command == command.Id {
				if d.Refused != "" {
					return false, refused(d)
				}
				left--
			}
		}
	}
	return left == 0, nil
}

func refused(d *pb.Decision) *Problem {
	return problem(http.StatusConflict, "refused", d.Refused)
}

// acted answers with the campaign as it is now.
func (s *Server) acted(app, id, command string, decided bool, status int) (*campaignOutput, error) {
	out := &campaignOutput{Status: status, Body: Campaign{ID: id}}
	if !decided {
		out.Status = http.StatusAccepted
	}
	c, err := s.follower.held(app, id)
	if err != nil {
		return nil, err
	}
	if c != nil {
		out.Body = campaignForm(c)
	}
	out.Body.Command = command
	return out, nil
}

// known finds a campaign or says that there is none.
func (s *Server) known(ctx context.Context, app, id string) (*pb.Campaign, error) {
	c, err := s.follower.campaign(ctx, app, id)
	if err == nil && c == nil {
		err = problem(http.StatusNotFound, "not-found", "The app has no campaign with this id.")
	}
	return c, err
}

func (s *Server) getCampaign(ctx context.Context, in *CampaignPath) (*campaignOutput, error) {
	c, err := s.known(ctx, appOf(ctx), in.ID)
	if err != nil {
		return nil, err
	}
	return &campaignOutput{http.StatusOK, campaignForm(c)}, nil
}

func (s *Server) listCampaigns(ctx context.Context, in *listInput) (*listOutput, error) {
	if !s.follower.ready() {
		return nil, unavailable("The campaigns on Kafka are still being read. Wait as Retry-After says and try again.")
	}
	all, err := s.follower.all(appOf(ctx))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b *pb.Campaign) int {
		return cmp.Or(cmp.Compare(b.CreatedAt, a.CreatedAt), cmp.Compare(a.Id, b.Id))
	})
	begin := 0
	if in.After != "" {
		begin = 1 + slices.IndexFunc(all, func(c *pb.Campaign) bool { return c.Id == in.After })
		if begin == 0 {
			return nil, invalid("query.after", errors.New("is not a campaign of this app"))
		}
	}
	page := CampaignList{Campaigns: []Campaign{}}
	for _, c := range all[begin:] {
		if in.State != "" && stateNames[c.State] != in.State {
			continue
		}
		if len(page.Campaigns) == in.Limit {
			page.Next = page.Campaigns[in.Limit-1].ID
			break
		}
		page.Campaigns = append(page.Campaigns, listedForm(c))
	}
	return &listOutput{page}, nil
}
