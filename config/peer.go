package config

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Peer is what this process tells the others of its configuration, so that each can see who was told otherwise: hashes of what
// providers know the apps by and of the apps' rules, and never of a secret. It reads service accounts for their ids; one that
// cannot be read counts as not known, since a role that does not send may do without.
func (c *Config) Peer(version string) (*pb.Peer, error) {
	p := &pb.Peer{Version: version, Roles: c.Roles, RedisPrefix: c.Redis.Prefix, Apps: map[string]*pb.AppPrint{}}
	if len(p.Roles) == 0 {
		p.Roles = []string{"all"}
	}
	for name, app := range c.Apps {
		a := &pb.AppPrint{Platforms: map[string]uint64{}}
		if app.APNs != nil {
			a.Platforms["apns"] = hash(app.APNs.KeyID, app.APNs.TeamID, app.APNs.Topic, app.APNs.URL, app.APNs.SandboxURL)
		}
		if app.FCM != nil {
			a.Platforms["fcm"] = app.FCM.print()
		}
		if app.WebPush != nil {
			a.Platforms["webpush"] = hash(app.WebPush.PublicKey, app.WebPush.Subject)
		}
		if app.Rules != nil {
			rules, err := json.Marshal(app.Rules)
			if err != nil {
				return nil, fmt.Errorf("apps.%s.rules: %w", name, err)
			}
			a.Rules = hash(string(rules))
		}
		p.Apps[name] = a
	}
	return p, nil
}

// print is 0 where the service account cannot be read.
func (f *FCM) print() uint64 {
	var account struct {
		Project string `json:"project_id"`
		Email   string `json:"client_email"`
		Key     string `json:"private_key_id"`
	}
	file, err := os.ReadFile(f.ServiceAccountFile)
	if err != nil || json.Unmarshal(file, &account) != nil {
		return 0
	}
	return hash(account.Project, account.Email, account.Key, f.URL, f.TokenURL)
}

// hash is never 0.
func hash(parts ...string) uint64 {
	text, _ := json.Marshal(parts) // strings always can be
	sum := sha256.Sum256(text)
	return max(1, binary.BigEndian.Uint64(sum[:]))
}

// Fingerprint is a short name of what Peer tells that all processes of a cluster should be told alike: processes with the same
// one were.
func Fingerprint(p *pb.Peer) string {
	alike := &pb.Peer{RedisPrefix: p.RedisPrefix, Apps: p.Apps}
	text, _ := proto.MarshalOptions{Deterministic: true}.Marshal(alike) // its strings are a YAML file's, which are UTF-8
	sum := sha256.Sum256(text)
	return fmt.Sprintf("%x", sum[:6])
}
