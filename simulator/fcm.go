package simulator

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// fcm is Firebase Cloud Messaging, HTTP v1, as firebase.google.com/docs/reference/fcm/rest/v1 describes it.
type fcm struct {
	world *world
	now   func() time.Time
}

const (
	fcmPayload = 4096
	fcmBody    = 64 << 10 // Google takes some such amount; the payload is what is limited
)

func (f *fcm) limit() int { return fcmBody }

// project cuts the project from /v1/projects/<project>/messages:send.
func (f *fcm) project(path string) (string, bool) {
	path, _, _ = strings.Cut(path, "?")
	rest, ok := strings.CutPrefix(path, "/v1/projects/")
	if !ok {
		return "", false
	}
	p, ok := strings.CutSuffix(rest, "/messages:send")
	return p, ok && p != "" && !strings.Contains(p, "/")
}

func (f *fcm) identify(c *call) {
	if p, ok := f.project(c.Path); ok {
		for i, a := range f.world.apps {
			if a.Project == p {
				c.app = i
			}
		}
	}
	if len(c.Body) > fcmBody {
		return
	}
	if c.err = json.Unmarshal(c.Body, &c.message); c.err != nil {
		return
	}
	root, _ := c.message.(map[string]any)
	message := object(root, "message")
	if token, _ := message["token"].(string); token != "" {
		c.target, c.known = f.world.openFCM(token)
	} else if fid, _ := message["fid"].(string); fid != "" {
		c.target, c.known = f.world.openFID(fid)
	}
}

func (f *fcm) judge(c *call) Answer {
	if a, refused := f.authorize(c); refused {
		return a
	}
	if len(c.Body) > fcmBody {
		return fcmError(http.StatusBadRequest, "INVALID_ARGUMENT", "Request payload size exceeds the limit.", "INVALID_ARGUMENT")
	}
	if c.err != nil {
		return fcmError(http.StatusBadRequest, "INVALID_ARGUMENT", "Invalid JSON payload received. "+c.err.Error(), "")
	}
	check := checker{}
	check.object("", c.message, sendRequest)
	if len(check.violations) > 0 {
		return fcmViolations(check.violations)
	}
	root := c.message.(map[string]any)
	message, _ := child(root, "message").(map[string]any)
	if v := messageRules(message); v != nil {
		return fcmViolations([]violation{*v})
	}
	if payloadSize(message) > fcmPayload {
		return fcmError(http.StatusBadRequest, "INVALID_ARGUMENT", "Android message is too big", "INVALID_ARGUMENT")
	}
	if a, refused := f.target(message, c); refused {
		return a
	}
	if only, _ := child(root, "validate_only").(bool); only {
		return Answer{Status: http.StatusOK, Fields: jsonUTF8, Body: f.name(c.app, "fake_message_id")}
	}
	return f.accept(message, c.app)
}

func (f *fcm) authorize(c *call) (Answer, bool) {
	if _, ok := f.project(c.Path); !ok {
		return fcmError(http.StatusNotFound, "NOT_FOUND", "The requested URL was not found on this server.", ""), true
	}
	if c.Method != http.MethodPost {
		return fcmError(http.StatusMethodNotAllowed, "INVALID_ARGUMENT", "Use POST.", ""), true
	}
	h := c.Header.Get("Authorization")
	if len(h) < 7 || !strings.EqualFold(h[:7], "bearer ") {
		return fcmError(http.StatusUnauthorized, "UNAUTHENTICATED",
			"Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or other valid authentication credential.", ""), true
	}
	owner, expires, ok := f.world.openAccess(h[7:])
	if !ok || expires <= f.now().Unix() {
		return fcmError(http.StatusUnauthorized, "UNAUTHENTICATED",
			"Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.", ""), true
	}
	if c.app < 0 {
		return fcmError(http.StatusNotFound, "NOT_FOUND", "Requested entity was not found.", ""), true
	}
	if owner != c.app {
		return fcmError(http.StatusForbidden, "PERMISSION_DENIED",
			"Permission 'cloudmessaging.messages.create' denied on resource (or it may not exist).", ""), true
	}
	if !strings.HasPrefix(c.Header.Get("Content-Type"), "application/json") {
		return fcmError(http.StatusBadRequest, "INVALID_ARGUMENT", "Content-Type must be application/json.", ""), true
	}
	return Answer{}, false
}

// target checks the device that the message is for. One is known by its token or by its installation id: registering the
// one ends the other (firebase/firebase-js-sdk discussion 10212).
func (f *fcm) target(message map[string]any, c *call) (Answer, bool) {
	token, _ := message["token"].(string)
	fid, _ := message["fid"].(string)
	if token == "" && fid == "" {
		return Answer{}, false // a topic or a condition
	}
	switch t := c.target; {
	case !c.known || t.service != FCM:
		return fcmError(http.StatusBadRequest, "INVALID_ARGUMENT",
			"The registration token is not a valid FCM registration token", "INVALID_ARGUMENT"), true
	case int(t.app) != c.app || t.other:
		return fcmError(http.StatusForbidden, "PERMISSION_DENIED", "SenderId mismatch", "SENDER_ID_MISMATCH"), true
	case t.gone || (fid != "") != (f.world.device(t.app, t.index).fid != t.renamed):
		return fcmError(http.StatusNotFound, "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED"), true
	}
	return Answer{}, false
}

func (f *fcm) accept(message map[string]any, app int) Answer {
	data, _ := message["data"].(map[string]any)
	text, _ := data["belfry_id"].(string)
	id, named := ParseID(text)
	unique := id
	if !named {
		unique = newID()
	}
	return Answer{
		Status: http.StatusOK, Fields: jsonUTF8, Accepted: true, ID: id, Named: named,
		Body: f.name(app, fmt.Sprintf("0:%d%%%s", f.now().UnixMicro(), hex.EncodeToString(unique[:8]))),
	}
}

// name is the answer to a message taken. Both of its parts are plain.
func (f *fcm) name(app int, message string) []byte {
	return fmt.Appendf(nil, "{\n  \"name\": \"projects/%s/messages/%s\"\n}\n", f.world.apps[app].Project, message)
}

// fcmError is Google's error form. code is FCM's own, in a detail; without it the error is the platform's.
func fcmError(status int, state, message, code string, more ...any) Answer {
	var details []any
	if code != "" {
		details = []any{map[string]string{
			"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code,
		}}
	}
	return googleError(status, state, message, append(details, more...))
}

// quotaFailure is the detail that tells whose quota was exceeded. Google's page says that there is one, and not what is in
// it: the words are the simulator's.
func quotaFailure(subject, description string) any {
	return map[string]any{
		"@type":      "type.googleapis.com/google.rpc.QuotaFailure",
		"violations": []any{map[string]string{"subject": subject, "description": description}},
	}
}

func fcmViolations(v []violation) Answer {
	return googleError(http.StatusBadRequest, "INVALID_ARGUMENT", v[0].Description, []any{map[string]any{
		"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": v,
	}})
}

func googleError(status int, state, message string, details []any) Answer {
	e := struct {
		Error struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
			Status  string `json:"status"`
			Details []any  `json:"details,omitempty"`
		} `json:"error"`
	}{}
	e.Error.Code, e.Error.Message, e.Error.Status, e.Error.Details = status, message, state, details
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	_ = enc.Encode(e) // strings and numbers cannot fail
	return Answer{Status: status, Fields: jsonUTF8, Body: b.Bytes()}
}

// fcmUsual is what a status most often means: Google's state, and FCM's code.
var fcmUsual = map[int][2]string{
	400: {"INVALID_ARGUMENT", "INVALID_ARGUMENT"}, 401: {"UNAUTHENTICATED", ""}, 403: {"PERMISSION_DENIED", ""},
	404: {"NOT_FOUND", "UNREGISTERED"}, 429: {"RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"}, 500: {"INTERNAL", "INTERNAL"},
	503: {"UNAVAILABLE", "UNAVAILABLE"},
}

func (f *fcm) refuse(c *call, ft *Fault, status int) Answer {
	usual, known := fcmUsual[status]
	if !known {
		usual[0] = "UNKNOWN"
	}
	code := ft.Reason
	switch code {
	case "", usual[1]:
		code = usual[1]
	case usual[0]:
		code = "" // Google's own state, without a word of FCM's
	}
	var more []any
	if code == "QUOTA_EXCEEDED" {
		if ft.aimed() || ft.Each == EachTarget {
			more = append(more, quotaFailure("device", "Device message rate exceeded."))
		} else if c.app >= 0 {
			more = append(more, quotaFailure("project:"+f.world.apps[c.app].Project, "Message send requests per minute exceeded."))
		}
	}
	return ft.retryAfter(fcmError(status, usual[0], "A fault of the simulator.", code, more...))
}
