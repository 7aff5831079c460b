package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// row is a line of a table in docs/providers.md whose first cell begins with an answer.
type row struct {
	section, answer, note string
	suspects, does, test  string
}

var answerCell = regexp.MustCompile("^`([^`]+)`(.*)$")

func providersPage(t *testing.T) (rows []row) {
	t.Helper()
	b, err := os.ReadFile("../docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	section := ""
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(name)
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		if len(cells) != 6 {
			t.Errorf("%d cells in %s", len(cells), line)
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		m := answerCell.FindStringSubmatch(cells[0])
		rows = append(rows, row{section: section, answer: m[1], note: m[2], suspects: cells[2], does: cells[3], test: cells[5]})
	}
	return rows
}

// play is an answer of the page, as the simulator is to give it.
type play struct {
	svc    Service
	status int
	word   string
	ending FaultKind // instead of a status
}

func (r row) play(t *testing.T) play {
	t.Helper()
	words := strings.Fields(r.answer)
	p := play{svc: map[string]Service{"APNs": APNs, "FCM": FCM, "FCM's token server": OAuth}[r.section]}
	switch r.section {
	case "Web Push":
		if err := p.svc.UnmarshalText([]byte(words[0])); err != nil {
			t.Fatal(err)
		}
		words = words[1:]
	case "No answer":
		p.svc, p.ending = APNs, FaultKind(words[0])
		if len(words) > 1 {
			p.word = words[1]
		}
		return p
	}
	status, err := strconv.Atoi(words[0])
	if err != nil {
		t.Fatalf("%s: %q has no status: %v", r.section, r.answer, err)
	}
	p.status = status
	if len(words) > 1 {
		p.word = words[1]
	}
	return p
}

func (p play) String() string {
	return strings.TrimSpace(fmt.Sprint(p.svc, " ", p.status, " ", p.word))
}

// Every answer on the page is one that the simulator gives, in the provider's words; through its sockets as without.
func TestEveryAnswerOfThePageIsGiven(t *testing.T) {
	s := start(t, withNtfy)
	send := newSender(t, s)
	rows := providersPage(t)
	bothDoors(t, s, func(t *testing.T, ask door) {
		for _, r := range rows {
			p := r.play(t)
			if p.ending != "" {
				continue
			}
			body := []byte(nil)
			var req *http.Request
			if p.svc == OAuth {
				req, body = tokenRequest(t, s)
			} else {
				req, body = send.push(healthy(t, s, p.svc, 1)[0], 1)
			}
			switch {
			case p.status < 300:
			case strings.Contains(r.note, "a field"):
				body = []byte(strings.Replace(string(body), `"notification":`, `"notificatoin":`, 1))
				req = post(t, req.URL.String(), map[string]string{"Authorization": req.Header.Get("Authorization"), "Content-Type": "application/json"}, body)
			default:
				f := Fault{Kind: Status, Origin: p.svc.String(), Status: p.status, Reason: p.word}
				if strings.Contains(r.note, "a device's quota") {
					f.Share = 1
				}
				setFault(t, s, "page", f)
			}
			res := ask(t, req, body, p.svc)
			s.ClearFaults()
			if got := said(t, p.svc, res, r.note); res.status != p.status || got != p.word {
				t.Errorf("%s%s: the simulator says %d %q: %s", r.answer, r.note, res.status, got, res.body)
			}
		}
	})
}

// said is an answer's own word, as the page has it.
func said(t *testing.T, svc Service, r response, note string) string {
	t.Helper()
	var b struct {
		Reason    string
		Timestamp int64
		Errno     json.Number
		Code      json.Number
		Error     any
	}
	isJSON := strings.HasPrefix(r.header.Get("Content-Type"), "application/json")
	if isJSON && json.Unmarshal([]byte(r.body), &b) != nil {
		t.Errorf("%s: no JSON: %s", svc, r.body)
	}
	good := r.status < 300
	switch svc {
	case APNs, APNsSandbox, Apple:
		if svc != Apple && r.status == http.StatusGone && b.Timestamp == 0 {
			t.Errorf("no timestamp in %s", r.body)
		}
		return b.Reason
	case FCM:
		var g googleAnswer
		if json.Unmarshal([]byte(r.body), &g) != nil || !good && g.Error.Code != r.status {
			t.Errorf("no answer of Google's: %s", r.body)
		}
		if quota := strings.Contains(r.body, "QuotaFailure"); quota && strings.Contains(note, "device") != strings.Contains(r.body, `"subject": "device"`) {
			t.Errorf("%s: whose quota it is: %s", note, r.body)
		}
		word := g.code()
		if strings.HasPrefix(word, "field: ") {
			return "INVALID_ARGUMENT"
		}
		states := []string{"UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND"}
		if own := strings.Contains(r.body, "FcmError"); !good && own == slices.Contains(states, word) {
			t.Errorf("whose word %s is: %s", word, r.body)
		}
		return word
	case OAuth:
		word, _ := b.Error.(string)
		return word
	case Mozilla:
		return b.Errno.String()
	case Windows:
		return r.header.Get("X-Wns-Status")
	case Ntfy:
		return b.Code.String()
	}
	return ""
}

func tokenRequest(t *testing.T, s *Simulator) (*http.Request, []byte) {
	t.Helper()
	a := app(t, s, "demo")
	form := url.Values{"grant_type": {jwtBearer}, "assertion": {assertion(t, s, a)}}.Encode()
	r := post(t, s.URL(OAuth)+"/token", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, []byte(form))
	return r, []byte(form)
}

// What the simulator may answer is on the page.
func TestEveryAnswerOfTheSimulatorIsOnThePage(t *testing.T) {
	told := map[string]bool{}
	for _, r := range providersPage(t) {
		told[r.play(t).String()] = true
	}
	want := func(p play) {
		if !told[p.String()] {
			t.Errorf("docs/providers.md has no row for %s", p)
		}
	}
	for reason, status := range apnsStatus {
		want(play{svc: APNs, status: status, word: reason})
	}
	for status, usual := range fcmUsual {
		want(play{svc: FCM, status: status, word: usual[min(1, len(usual[1]))]})
	}
	for _, reason := range []string{"SENDER_ID_MISMATCH", "PERMISSION_DENIED"} {
		want(play{svc: FCM, status: 403, word: reason})
	}
	for svc, v := range vendors {
		for _, p := range problems {
			status := p.status(svc)
			switch {
			case svc == Ntfy && !slices.Contains([]int{404, 429, 500, 507}, status), status == 405 && svc != Apple, p == bridge && svc > Mozilla:
				continue // ntfy looks at no header; Belfry never sends anything but POST; these have no gateway to others
			}
			a := v.problem(p, "", "")
			got := response{status: a.Status, header: a.Header(), body: string(a.Body)}
			want(play{svc: svc, status: status, word: said(t, svc, got, "")})
		}
	}
}

// What is not an answer can be made, too.
func TestEveryWayToGetNoAnswerIsMade(t *testing.T) {
	s := start(t, nil)
	made := 0
	for _, r := range providersPage(t) {
		p := r.play(t)
		if p.ending == "" {
			continue
		}
		kind := p.ending
		if kind == "timeout" {
			kind = Stall
		}
		if err := s.SetFault("page", Fault{Kind: kind, Code: p.word}); err != nil {
			t.Errorf("%s: %v", r.answer, err)
		}
		made++
	}
	if made < 5 {
		t.Errorf("only %d ways were found", made)
	}
}

// Each row says of whom it can speak in the page's own terms, and names a test that there is.
func TestThePageIsWhole(t *testing.T) {
	suspects := []string{"device", "message", "credential", "service", "topic's owner"}
	named := 0
	for _, r := range providersPage(t) {
		for part := range strings.SplitSeq(r.suspects, ", ") {
			part, _, _ = strings.Cut(strings.TrimPrefix(part, "or the "), " if ")
			if part != "" && !slices.Contains(suspects, part) && !strings.HasPrefix(part, "with this device's") && !strings.HasPrefix(part, "for its Apple") {
				t.Errorf("%s: %q is none of %v", r.answer, part, suspects)
			}
		}
		if r.suspects == "service" && !strings.Contains(r.does, "rate") && !strings.HasSuffix(r.section, "token server") {
			t.Errorf("%s: a service alone is suspected", r.answer)
		}
		if r.does == "" {
			t.Errorf("%s: what Belfry does is left out", r.answer)
		}
		if r.test == "to come" {
			continue
		}
		folder, name, _ := strings.Cut(strings.Trim(r.test, "`"), " ")
		files, err := filepath.Glob("../" + folder + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(file string) bool {
			b, err := os.ReadFile(file)
			return err == nil && strings.Contains(string(b), "func "+name+"(")
		}) {
			t.Errorf("%s: there is no test %s in %s", r.answer, name, folder)
		}
		named++
	}
	if named < 50 {
		t.Errorf("only %d rows name a test", named)
	}
}
