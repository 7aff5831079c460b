// Package refusal makes one topic of a real Kafka refuse records, while all else is well, by what an operator may do to it.
package refusal

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Change changes a topic, named with its prefix. It is in force some time after it returns.
type Change func(ctx context.Context, adm *kadm.Client, topic string) error

// Setting gives a topic's setting a value, or with "" takes back the one that it was given.
func Setting(name, value string) Change {
	return func(ctx context.Context, adm *kadm.Client, topic string) error {
		alter := kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value}
		if value == "" {
			alter.Op, alter.Value = kadm.DeleteConfig, nil
		}
		answers, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{alter}, topic)
		for _, a := range answers {
			err = errors.Join(err, a.Err)
		}
		return err
	}
}

// rights are a topic's while nobody may write to it: everybody is anonymous here, and who has any rule has no right without one.
func rights(topic string) []*kadm.ACLBuilder {
	of := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Topics(topic).ResourcePatternType(kadm.ACLPatternLiteral)
	}
	return []*kadm.ACLBuilder{
		of().Deny("User:ANONYMOUS").DenyHosts("*").Operations(kadm.OpWrite),
		of().Allow("User:ANONYMOUS").AllowHosts("*").Operations(kadm.OpAll),
	}
}

// Deny takes the right to write to a topic away. The brokers need an authorizer that lets this user do so, as kafka-start --acls
// gives them: else the error is kerr.SecurityDisabled.
func Deny(ctx context.Context, adm *kadm.Client, topic string) error {
	var wrong error
	for _, b := range rights(topic) {
		made, err := adm.CreateACLs(ctx, b)
		wrong = errors.Join(wrong, err)
		for _, r := range made {
			wrong = errors.Join(wrong, r.Err)
		}
	}
	return wrong
}

// Allow takes Deny back.
func Allow(ctx context.Context, adm *kadm.Client, topic string) error {
	var wrong error
	for _, b := range rights(topic) {
		gone, err := adm.DeleteACLs(ctx, b)
		wrong = errors.Join(wrong, err)
		for _, r := range gone {
			wrong = errors.Join(wrong, r.Err)
		}
	}
	return wrong
}
