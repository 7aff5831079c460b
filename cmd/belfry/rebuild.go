package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/ledger"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/stream"
)

func rebuildCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Fill Redis anew from Kafka",
		Long: `Fill Redis anew from Kafka: the devices, and the accounts that are shown. Running processes wait for it and go on by
themselves. Nothing is lost with a Redis that is lost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			if len(cfg.Redis.Addresses) == 0 {
				return errors.New("redis.addresses is not set: the embedded Redis is rebuilt whenever belfry serve starts")
			}
			k, err := clusterOf(cmd, path)
			if err != nil {
				return err
			}
			if err := stream.CheckCluster(cmd.Context(), k); err != nil {
				return err // what lies on a wrong partition must not come back
			}
			c, err := cfg.Registry()
			if err != nil {
				return err
			}
			r, err := registry.OpenRedis(c)
			if err != nil {
				return err
			}
			defer r.Close()
			bars := newBars(cmd.ErrOrStderr())
			devices := bars.add("devices", 0)
			err = registry.Rebuild(cmd.Context(), k, registry.New(r), devices.set)
			devices.end()
			bars.wait()
			if err != nil {
				return err
			}
			return ledger.Rebuild(cmd.Context(), ledger.Options{Kafka: k, Redis: r, Prefix: r.Prefix})
		},
	}
	configFlag(cmd, &path)
	return cmd
}
