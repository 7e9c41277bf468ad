// Writes the dashboards of the chart: `go run . FOLDER` makes a file of each in FOLDER. What they show is in a file each; how
// panels look is in panels.go.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Named is a dashboard and the name of its file.
type Named struct {
	Name  string
	Build func() *dashboard.DashboardBuilder
}

var all = []Named{
	{"fleet", fleet},
	{"deployment", deployment},
	{"planner", planner},
	{"operator", operator},
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run . FOLDER")
		os.Exit(2)
	}
	for _, one := range all {
		if err := write(os.Args[1], one); err != nil {
			fmt.Fprintf(os.Stderr, "dashboard %s: %v\n", one.Name, err)
			os.Exit(1)
		}
	}
}

// write makes the file of a dashboard, of what Grafana's own schema takes and nothing else.
func write(folder string, one Named) error {
	built, err := one.Build().Build()
	if err != nil {
		return err
	}
	if err := built.Validate(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(built, "", "  ")
	if err != nil {
		return err
	}
	var read dashboard.Dashboard
	// Where nothing is wrong the SDK returns a list of no errors, which is not nil.
	var wrong cog.BuildErrors
	if err := read.UnmarshalJSONStrict(text); err != nil && !(errors.As(err, &wrong) && len(wrong) == 0) {
		return fmt.Errorf("it is not what the schema has: %w", err)
	}
	return os.WriteFile(filepath.Join(folder, one.Name+".json"), append(text, '\n'), 0o644)
}
