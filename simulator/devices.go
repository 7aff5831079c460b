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

// WriteDevices writes an app's devices as the API takes them: one JSON object a line. Users hold one to three devices.
func (s *Simulator) WriteDevices(w io.Writer, app string) error {
	a, err := s.App(app)
	if err != nil {
		return err
	}
	buf := make([]byte, 0, 1<<16)
	for i := range s.world.Devices {
		buf = s.appendDevice(buf, s.world.device(a.index, uint32(i)))
		if len(buf) > 1<<16-1024 || i == s.world.Devices-1 {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	return nil
}

// Devices is the number of an app's devices by platform and fate.
func (s *Simulator) Devices(app string) (map[string]map[Fate]int, error) {
	a, err := s.App(app)
	if err != nil {
		return nil, err
	}
	n := map[string]map[Fate]int{}
	for i := range s.world.Devices {
		d := s.world.device(a.index, uint32(i))
		p := d.service.platform()
		if n[p] == nil {
			n[p] = map[Fate]int{}
		}
		n[p][d.fate]++
	}
	return n, nil
}

// appendDevice writes by hand, for a million lines are written; every string in it is one that JSON needs not escape.
func (s *Simulator) appendDevice(b []byte, d device) []byte {
	l := d.lot
	locale := l.below(lotLocale, len(locales))
	b = append(b, `{"id":"d-`...)
	b = appendPadded(b, int(d.index))
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
	b = s.appendTarget(b, d)
	return append(b, '}', '\n')
}

func (s *Simulator) appendTarget(b []byte, d device) []byte {
	w := s.world
	switch d.service {
	case APNs:
		return fmt.Appendf(b, `"apns":{"token":"%s","environment":"production"}`, w.apnsToken(d.target))
	case APNsSandbox:
		return fmt.Appendf(b, `"apns":{"token":"%s","environment":"sandbox"}`, w.apnsToken(d.target))
	case FCM:
		if d.fid {
			return fmt.Appendf(b, `"fcm":{"fid":"%s"}`, w.fid(d.target))
		}
		return fmt.Appendf(b, `"fcm":{"token":"%s"}`, w.fcmToken(d.target))
	default:
		return fmt.Appendf(b, `"webpush":{"endpoint":"%s%s%s","p256dh":"%s","auth":"%s"}`,
			s.URL(d.service), vendors[d.service].prefix, w.subscription(d.target),
			w.p256dh[d.index%subscriptionKeys], base64.RawURLEncoding.EncodeToString(w.authSecret(d.target)))
	}
}

// owner gives six devices in a row to three users: one, two and three.
func owner(i int) int { return i/6*3 + [6]int{0, 1, 1, 2, 2, 2}[i%6] }

func appendPadded(b []byte, n int) []byte {
	for limit := 100_000; limit > n && limit > 1; limit /= 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, int64(n), 10)
}
