// Command belfry is Belfry: `belfry serve` runs any set of its roles, and the other commands are for the people who use
// and operate it. Each command has a file of its own; app.go ties the roles together.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // devices name their zones, and small images have none

	"github.com/spf13/cobra"
)

func main() {
	// The first signal asks to stop in good order. The second one finds the default handling back, and ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := rootCommand().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSaid) {
			fmt.Fprintln(os.Stderr, "belfry:", err)
		}
		os.Exit(1)
	}
}

// errSaid fails a command that has said why already.
var errSaid = errors.New("said")

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "belfry",
		Short:         "Push notifications to every phone and browser, on Kafka",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		serveCommand(), checkCommand(), topicsCommand(), rebuildCommand(),
		simulateCommand(), demoCommand(), versionCommand(),
	)
	root.AddCommand(clientCommands()...)
	return root
}
