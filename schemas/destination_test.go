package schemas

import (
	"testing"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func TestDestinationName(t *testing.T) {
	at := func(endpoint string) *pb.Target {
		return &pb.Target{Kind: &pb.Target_Webpush{Webpush: &pb.WebPushTarget{Endpoint: endpoint}}}
	}
	for _, test := range []struct {
		target *pb.Target
		want   string
	}{
		{at("https://fcm.googleapis.com/fcm/send/x"), "fcm.googleapis.com"},
		{at("https://jmt17.google.com/fcm/send/x"), "https://jmt17.google.com"},
		{at("https://updates.push.services.mozilla.com/wpush/v2/x"), "updates.push.services.mozilla.com"},
		{at("HTTPS://Updates.Push.Services.Mozilla.com:443/wpush/v2/x"), "updates.push.services.mozilla.com"},
		{at("https://web.push.apple.com/x"), "web.push.apple.com"},
		{at("https://wns2-par02p.notify.windows.com/w/?token=x"), "notify.windows.com"},
		{at("https://evilnotify.windows.com/x"), "https://evilnotify.windows.com"},
		{at("https://ntfy.example:8443/up?up=1"), "https://ntfy.example:8443"},
		{at("https://ntfy.example?up=1"), "https://ntfy.example"},
		{at("http://127.0.0.1:80/x"), "http://127.0.0.1"},
		{at("https://[2001:DB8::1]:443/x"), "https://[2001:db8::1]"},
		{&pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{}}}, "production"},
		{&pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Environment: pb.Environment_ENVIRONMENT_SANDBOX}}}, "sandbox"},
		{&pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: "x"}}}, ""},
	} {
		if got := DestinationName(test.target); got != test.want {
			t.Errorf("%v is %q, want %q", test.target, got, test.want)
		}
	}
}
