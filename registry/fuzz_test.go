package registry

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// FuzzDecodeChange: whatever lies on belfry.devices is refused, or is of the device that its key names.
func FuzzDecodeChange(f *testing.F) {
	for key, r := range map[string]*pb.DeviceRecord{
		"shop/d-1":      {Kind: &pb.DeviceRecord_Device{Device: &pb.Device{App: "shop", Id: "d-1", Platform: pb.Platform_PLATFORM_APNS}}},
		"shop/d-1#gone": {Kind: &pb.DeviceRecord_Gone{Gone: &pb.DeviceGone{App: "shop", Id: "d-1", At: 3}}},
		"shop/d-2":      {Kind: &pb.DeviceRecord_Device{Device: &pb.Device{App: "shop", Id: "d-1"}}},
		"nothing":       {},
	} {
		value, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(key), value)
	}
	f.Add([]byte("shop/d-3"), []byte(nil))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		c, ok, err := DecodeChange(key, value)
		if err != nil || !ok {
			return
		}
		want := schemas.DeviceKey(c.app, c.id)
		if c.gone != nil {
			want = schemas.DeviceGoneKey(c.app, c.id)
		}
		if string(want) != string(key) {
			t.Errorf("the key %q is taken for device %q of app %q", key, c.id, c.app)
		}
	})
}
