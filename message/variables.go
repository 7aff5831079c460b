package message

import (
	"strconv"
	"strings"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Variables resolves names for a device. extra holds what the device does not: "data.code", "event.name" and so on,
// by their whole names; what the device has itself wins. What is missing or empty is left out, and renders as its default.
func Variables(names []string, d *pb.Device, extra map[string]string) map[string]string {
	var out map[string]string
	for _, name := range names {
		v := Variable(name, d)
		if v == "" {
			v = extra[name]
		}
		if v == "" {
			continue
		}
		if out == nil {
			out = make(map[string]string, len(names))
		}
		out[name] = v
	}
	return out
}

// Attributes is before the name of a device's attribute where a template names it.
const Attributes = "attributes."

// Variable is what a name of Names says of a device, or "".
func Variable(name string, d *pb.Device) string {
	switch name {
	case "device.id":
		return d.GetId()
	case "device.platform":
		return schemas.PlatformName(d.GetPlatform())
	case "user":
		return d.GetUser()
	case "locale":
		return d.GetLocale()
	case "app_version":
		return d.GetAppVersion()
	}
	if key, ok := strings.CutPrefix(name, Attributes); ok {
		return Text(d.GetAttributes()[key])
	}
	return ""
}

// Text is how a value reads in a message: 3, 2.5, true. Large numbers are written out, never with an exponent.
func Text(v *pb.Value) string {
	switch k := v.GetKind().(type) {
	case *pb.Value_Text:
		return k.Text
	case *pb.Value_Number:
		return strconv.FormatFloat(k.Number, 'f', -1, 64)
	case *pb.Value_Flag:
		return strconv.FormatBool(k.Flag)
	default:
		return ""
	}
}
