package main

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/config"
	"github.com/belfry/belfry/priority"
)

func serveCommand() *cobra.Command {
	var path string
	var roles []string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run Belfry, or some of its roles",
		Long: `Run Belfry until SIGTERM or SIGINT, which stop it in good order.

Without kafka.brokers and redis.addresses in the configuration it runs on an embedded Kafka and an embedded Redis, in
this process, with its data in data_dir: for one machine. All else is the same.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			if len(roles) > 0 {
				cfg.Roles = roles
				if err := cfg.Validate(); err != nil {
					return err
				}
			}
			log := cfg.Logger(cmd.ErrOrStderr())
			if cfg.CanWait() {
				if err := priority.Yield(); err != nil {
					log.Warn("could not lower this process's priority: campaigns may make urgent messages late where both share cores", "err", err)
				}
			}
			a, err := openApp(cmd.Context(), cfg, log)
			if errors.Is(err, context.Canceled) { // that is a stop in good order too
				log.Info("belfry was told to stop before it served")
				return nil
			}
			if err != nil {
				return err
			}
			defer a.Close()
			log.Info("belfry serves", "version", version, "configuration", config.Fingerprint(a.peer),
				"roles", strings.Join(a.peer.Roles, ","), "instance", cfg.Instance, "listen", a.address,
				"kafka", kindOf(cfg.Kafka.Brokers), "redis", kindOf(cfg.Redis.Addresses), "apps", strings.Join(slices.Sorted(maps.Keys(cfg.Apps)), ","))
			if len(cfg.Apps) == 0 {
				log.Warn("no apps are configured, so nobody can call the API: see docs/configuration.md, or belfry simulate --dir for a ready example")
			}
			err = a.Run(cmd.Context())
			log.Info("belfry has stopped")
			return err
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringSliceVar(&roles, "roles", nil, "roles to run instead of the configuration's: "+strings.Join(config.Roles, ", "))
	return cmd
}

func kindOf(addresses []string) string {
	if len(addresses) == 0 {
		return "embedded"
	}
	return strings.Join(addresses, ",")
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "configuration file (also BELFRY_CONFIG)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // fails only for a flag that is not there
}

func loadConfig(path string) (*config.Config, error) {
	if path == "" {
		path = os.Getenv("BELFRY_CONFIG")
	}
	return config.Load(path, os.Environ())
}
