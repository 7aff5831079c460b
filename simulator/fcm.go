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
	rest, ok := strings.CutPrefix(path, "/v1/projects/")
	if !ok {
		return "", false
	}
	p, ok := strings.CutSuffix(rest, "/messages:send")
	return p, ok && p != "" && !strings.Contains(p, "/")
}

func (f *fcm) app(r *http.Request, _ []byte) int {
	if p, ok := f.project(r.URL.Path); ok {
		for i, a := range f.world.apps {
			if a.Project == p {
				return i
			}
		}
	}
	return -1
}

func (f *fcm) judge(r *http.Request, body []byte) answer {
	app := f.app(r, nil)
	if a, refused := f.authorize(r, app); refused {
		return a
	}
	if len(body) > fcmBody {
		return fcmError(http.StatusBadRequest, "INVALID_ARGUMENT", "Request payload size exceeds the limit.", "INVALID_ARGUMENT")
	}
	var request any
	if err := json.Unmarshal(body, &request); err != nil {
		return fcmError(http.StatusBadRequest, "INVALID_ARGUMENT", "Invalid JSON payload received. "+err.Error(), "")
	}
	c := checker{}
	c.object("", request, sendRequest)
	if len(c.violations) > 0 {
		return fcmViolations(c.violations)
	}
	root := request.(map[string]any)
	message, _ := child(root, "message").(map[string]any)
	if v := messageRules(message); v != nil {
		return fcmViolations([]violation{*v})
	}
	if payloadSize(message) > fcmPayload {
		return fcmError(http.StatusBadRequest, "INVALID_ARGUMENT", "Android message is too big", "INVALID_ARGUMENT")
	}
	if a, refused := f.target(message, app); refused {
		return a
	}
	if only, _ := child(root, "validate_only").(bool); only {
		return answer{status: http.StatusOK, fields: jsonUTF8, body: f.name(app, "fake_message_id")}
	}
	return f.accept(message, app)
}

func (f *fcm) authorize(r *http.Request, app int) (answer, bool) {
	if _, ok := f.project(r.URL.Path); !ok {
		return fcmError(http.StatusNotFound, "NOT_FOUND", "The requested URL was not found on this server.", ""), true
	}
	if r.Method != http.MethodPost {
		return fcmError(http.StatusMethodNotAllowed, "INVALID_ARGUMENT", "Use POST.", ""), true
	}
	h := r.Header.Get("Authorization")
	if len(h) < 7 || !strings.EqualFold(h[:7], "bearer ") {
		return fcmError(http.StatusUnauthorized, "UNAUTHENTICATED",
			"Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or other valid authentication credential.", ""), true
	}
	owner, expires, ok := f.world.openAccess(h[7:])
	if !ok || expires <= f.now().Unix() {
		return fcmError(http.StatusUnauthorized, "UNAUTHENTICATED",
			"Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.", ""), true
	}
	if app < 0 {
		return fcmError(http.StatusNotFound, "NOT_FOUND", "Requested entity was not found.", ""), true
	}
	if owner != app {
		return fcmError(http.StatusForbidden, "PERMISSION_DENIED",
			"Permission 'cloudmessaging.messages.create' denied on resource (or it may not exist).", ""), true
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return fcmError(http.StatusBadRequest, "INVALID_ARGUMENT", "Content-Type must be application/json.", ""), true
	}
	return answer{}, false
}

// target checks the device that the message is for.
func (f *fcm) target(message map[string]any, app int) (answer, bool) {
	var t target
	var ok bool
	if token, _ := message["token"].(string); token != "" {
		t, ok = f.world.openFCM(token)
	} else if fid, _ := message["fid"].(string); fid != "" {
		t, ok = f.world.openFID(fid)
	} else {
		return answer{}, false // a topic or a condition
	}
	switch {
	case !ok || t.service != FCM:
		return fcmError(http.StatusBadRequest, "INVALID_ARGUMENT",
			"The registration token is not a valid FCM registration token", "INVALID_ARGUMENT"), true
	case int(t.app) != app:
		return fcmError(http.StatusForbidden, "PERMISSION_DENIED", "SenderId mismatch", "SENDER_ID_MISMATCH"), true
	case t.gone:
		return fcmError(http.StatusNotFound, "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED"), true
	}
	return answer{}, false
}

func (f *fcm) accept(message map[string]any, app int) answer {
	data, _ := message["data"].(map[string]any)
	text, _ := data["belfry_id"].(string)
	id, named := ParseID(text)
	unique := id
	if !named {
		unique = newID()
	}
	return answer{
		status: http.StatusOK, fields: jsonUTF8, accepted: true, id: id, named: named,
		body: f.name(app, fmt.Sprintf("0:%d%%%s", f.now().UnixMicro(), hex.EncodeToString(unique[:8]))),
	}
}

// name is the answer to a message taken. Both of its parts are plain.
func (f *fcm) name(app int, message string) []byte {
	return fmt.Appendf(nil, "{\n  \"name\": \"projects/%s/messages/%s\"\n}\n", f.world.apps[app].Project, message)
}

// fcmError is Google's error form. code is FCM's own, in a detail; without it the error is the platform's.
func fcmError(status int, state, message, code string) answer {
	var details []any
	if code != "" {
		details = []any{map[string]string{
			"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code,
		}}
	}
	return googleError(status, state, message, details)
}

func fcmViolations(v []violation) answer {
	return googleError(http.StatusBadRequest, "INVALID_ARGUMENT", v[0].Description, []any{map[string]any{
		"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": v,
	}})
}

func googleError(status int, state, message string, details []any) answer {
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
	return answer{status: status, fields: jsonUTF8, body: b.Bytes()}
}

// fcmUsual is what a status most often means: Google's state, and FCM's code.
var fcmUsual = map[int][2]string{
	400: {"INVALID_ARGUMENT", "INVALID_ARGUMENT"}, 401: {"UNAUTHENTICATED", ""}, 403: {"PERMISSION_DENIED", ""},
	404: {"NOT_FOUND", "UNREGISTERED"}, 429: {"RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"}, 500: {"INTERNAL", "INTERNAL"},
	503: {"UNAVAILABLE", "UNAVAILABLE"},
}

func (f *fcm) refuse(ft *Fault, status int) answer {
	usual, known := fcmUsual[status]
	if !known {
		usual[0] = "UNKNOWN"
	}
	code := usual[1]
	if ft.Reason != "" {
		code = ft.Reason
	}
	a := fcmError(status, usual[0], "A fault of the simulator.", code)
	a.fields = ft.retryAfter(a.fields[:len(a.fields):len(a.fields)])
	return a
}
