package simulator

import (
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
)

var (
	locales = []string{"en-GB", "en-US", "fr-FR", "de-DE", "es-ES", "pt-BR", "ja-JP", "pl-PL", "el-GR", "ar-EG"}
	zones   = []string{
		"Europe/London", "America/New_York", "Europe/Paris", "Europe/Berlin", "Europe/Madrid",
		"America/Sao_Paulo", "Asia/Tokyo", "Europe/Warsaw", "Europe/Athens", "Africa/Cairo",
	}
	firstNames = []string{
		"Ada", "Grace", "Zoë", "José", "Łukasz", "Søren", "Željko", "Ngọc", "Мария", "Ελένη", "さくら", "小龍",
		"محمد", "Siân", "O’Neill", "Renée", "Jürgen", "Ayşe", "Björk", "Ana María",
	}
	versions = []string{"3.0.0", "3.1.4", "3.2.0", "3.2.1", "4.0.0-beta.1"}
)

// Device is one of the population's, with what its owner knows of it and what becomes of pushes to it.
type Device struct {
	ID      string  `json:"id"`
	App     string  `json:"app"`
	Service Service `json:"origin"` // where its owner believes it to be
	Fate    Fate    `json:"fate"`
	// Faults are those in force that are aimed at it, by name.
	Faults []string `json:"faults,omitempty"`
	// Asked are the requests to it, and Accepted those of them whose message was taken.
	Asked    int `json:"asked"`
	Accepted int `json:"accepted"`

	// What it is reached by, in the forms of the API: the token of an APNs device, the token or installation id of one of
	// FCM's, a subscription's endpoint and keys.
	Token, FID, Endpoint, P256dh, Auth string `json:"-"`
}

// Device is an app's device by its id.
func (p *Providers) Device(app, id string) (Device, error) {
	k, ok := p.world.called(app, id)
	if !ok {
		return Device{}, fmt.Errorf("simulator: app %q has no device %q", app, id)
	}
	return p.describe(p.world.device(k.app, k.index)), nil
}

// EachDevice calls f with every device of an app, until f fails.
func (p *Providers) EachDevice(app string, f func(Device) error) error {
	a, err := p.App(app)
	if err != nil {
		return err
	}
	for i := range p.world.Devices {
		if err := f(p.describe(p.world.device(a.index, uint32(i)))); err != nil {
			return err
		}
	}
	return nil
}

func (p *Providers) describe(d device) Device {
	out := p.reached(d)
	out.ID, out.App = string(appendDeviceID(nil, d.index)), p.world.Apps[d.app]
	out.Service, out.Fate, out.Faults = d.service, d.fate, p.faults.at(d)
	if n := p.receipts.counts(d.target.key(), true); n != nil {
		out.Asked, out.Accepted = int(n.asked.Load()), int(n.accepted.Load())
	}
	return out
}

// reached is what a device is reached by.
func (p *Providers) reached(d device) (out Device) {
	w := p.world
	switch {
	case d.service.platform() == "apns":
		out.Token = w.apnsToken(d.target)
	case d.fid:
		out.FID = w.fid(d.target)
	case d.service == FCM:
		out.Token = w.fcmToken(d.target)
	default:
		out.Endpoint = p.URL(d.service) + vendors[d.service].endpoint(w, d.target)
		out.P256dh = w.subscriptionKey(d.target).p256dh
		out.Auth = base64.RawURLEncoding.EncodeToString(w.authSecret(d.target))
	}
	return out
}

// WriteDevices writes an app's devices as the API takes them: one JSON object a line. Users hold one to three devices.
func (p *Providers) WriteDevices(w io.Writer, app string) error {
	a, err := p.App(app)
	if err != nil {
		return err
	}
	buf := make([]byte, 0, 1<<16)
	for i := range p.world.Devices {
		buf = p.appendDevice(buf, p.world.device(a.index, uint32(i)))
		if len(buf) > 1<<16-1024 || i == p.world.Devices-1 {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	return nil
}

// Devices is the number of an app's devices by platform and fate.
func (p *Providers) Devices(app string) (map[string]map[Fate]int, error) {
	a, err := p.App(app)
	if err != nil {
		return nil, err
	}
	n := map[string]map[Fate]int{}
	for i := range p.world.Devices {
		d := p.world.device(a.index, uint32(i))
		platform := d.service.platform()
		if n[platform] == nil {
			n[platform] = map[Fate]int{}
		}
		n[platform][d.fate]++
	}
	return n, nil
}

// appendDevice writes by hand, for a million lines are written; every string in it is one that JSON needs not escape.
func (p *Providers) appendDevice(b []byte, d device) []byte {
	l := d.lot
	locale := l.below(lotLocale, len(locales))
	b = appendDeviceID(append(b, `{"id":"`...), d.index)
	b = append(b, `","user":"u-`...)
	b = appendPadded(b, owner(int(d.index)))
	b = append(b, `","platform":"`...)
	b = append(b, d.service.platform()...)
	b = append(b, `","locale":"`...)
	b = append(b, locales[locale]...)
	b = append(b, `","app_version":"`...)
	b = append(b, versions[l.below(lotVersion, len(versions))]...)
	b = append(b, `","time_zone":"`...)
	b = append(b, zones[locale]...)
	b = append(b, `","tags":[`...)
	switch l.below(lotTags, 4) {
	case 0:
		b = append(b, `"beta"`...)
	case 1:
		b = append(b, `"news","sport"`...)
	}
	b = append(b, `],"attributes":{"first_name":"`...)
	b = append(b, firstNames[l.below(lotName, len(firstNames))]...)
	b = append(b, `","level":`...)
	b = strconv.AppendInt(b, int64(1+l.below(lotLevel, 50)), 10)
	b = append(b, `,"paying":`...)
	b = strconv.AppendBool(b, l.below(lotLevel, 5) == 0)
	b = append(b, `},`...)
	b = p.appendTarget(b, d)
	return append(b, '}', '\n')
}

func (p *Providers) appendTarget(b []byte, d device) []byte {
	r := p.reached(d)
	switch {
	case d.service == APNs:
		return fmt.Appendf(b, `"apns":{"token":"%s","environment":"production"}`, r.Token)
	case d.service == APNsSandbox:
		return fmt.Appendf(b, `"apns":{"token":"%s","environment":"sandbox"}`, r.Token)
	case d.fid:
		return fmt.Appendf(b, `"fcm":{"fid":"%s"}`, r.FID)
	case d.service == FCM:
		return fmt.Appendf(b, `"fcm":{"token":"%s"}`, r.Token)
	}
	return fmt.Appendf(b, `"webpush":{"endpoint":"%s","p256dh":"%s","auth":"%s"}`, r.Endpoint, r.P256dh, r.Auth)
}

// owner gives six devices in a row to three users: one, two and three.
func owner(i int) int { return i/6*3 + [6]int{0, 1, 1, 2, 2, 2}[i%6] }

func appendDeviceID(b []byte, index uint32) []byte {
	return appendPadded(append(b, "d-"...), int(index))
}

func appendPadded(b []byte, n int) []byte {
	for limit := 100_000; limit > n && limit > 1; limit /= 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, int64(n), 10)
}
