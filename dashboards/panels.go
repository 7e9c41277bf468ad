package main

import (
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/heatmap"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// Units as Grafana names them.
const (
	bytes       = "bytes"
	bytesASec   = "Bps"
	none        = "short"
	perSecond   = "reqps"
	tokensASec  = "tokens/s"
	seconds     = "s"
	share       = "percentunit"
	writesASec  = "wps"
	passesASec  = "ops"
	sinceEpoch  = "dateTimeFromNow"
	windowSpan  = "dtdurations"
	pagesASec   = "pages/s"
	expertsASec = "experts/s"
)

// Query is an expression and how its series are called.
type Query struct {
	Expr   string
	Legend string
}

// q is a query of selected series: `@` stands for what selects them, without braces.
func q(selector, expr, legend string) Query {
	return Query{strings.ReplaceAll(expr, "@", selector), legend}
}

func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}
}

func target(query Query, number int) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().
		Expr(query.Expr).LegendFormat(query.Legend).RefId(string(rune('A' + number)))
}

// page is a dashboard without panels.
func page(uid, title, description string, variables ...cog.Builder[dashboard.VariableModel]) *dashboard.DashboardBuilder {
	chosen := dashboard.NewDatasourceVariableBuilder("datasource").Label("Prometheus").Type("prometheus")
	built := dashboard.NewDashboardBuilder("SwiftBalancer / "+title).
		Uid("swiftbalancer-"+uid).
		Description(description).
		Tags([]string{"swiftbalancer"}).
		Timezone("browser").
		Time("now-1h", "now").
		Refresh("30s").
		Readonly().
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Link(dashboard.NewDashboardLinkBuilder("SwiftBalancer").Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{"swiftbalancer"}).AsDropdown(true).IncludeVars(true).KeepTime(true)).
		WithVariable(chosen)
	for _, variable := range variables {
		built = built.WithVariable(variable)
	}
	return built
}

// choice is a variable with the values that a label has; `more` selects series by further variables.
func choice(name, label, metric, more string) cog.Builder[dashboard.VariableModel] {
	query := "label_values(" + metric + more + ", " + name + ")"
	return dashboard.NewQueryVariableBuilder(name).
		Label(label).
		Datasource(source()).
		Query(dashboard.StringOrMap{String: cog.ToPtr(query)}).
		Definition(query).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc).
		Multi(true).
		IncludeAll(true).
		AllValue(".*").
		Current(dashboard.VariableOption{
			Selected: cog.ToPtr(true),
			Text:     dashboard.StringOrArrayOfString{String: cog.ToPtr("All")},
			Value:    dashboard.StringOrArrayOfString{String: cog.ToPtr("$__all")},
		})
}

func row(title string) *dashboard.RowBuilder {
	return dashboard.NewRowBuilder(title)
}

// graph shows values over time.
func graph(title, description, unit string, queries ...Query) *timeseries.PanelBuilder {
	panel := timeseries.NewPanelBuilder().
		Title(title).Description(description).Datasource(source()).Unit(unit).
		Span(8).Height(8).
		LineWidth(1).FillOpacity(8).Min(0).
		ShowPoints(common.VisibilityModeNever).
		SpanNulls(common.BoolOrFloat64{Float64: cog.ToPtr(120_000.0)}).
		Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).
			Placement(common.LegendPlacementBottom).ShowLegend(true)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
	for number, query := range queries {
		panel = panel.WithTarget(target(query, number))
	}
	return panel
}

// stacked shows parts of a whole over time.
func stacked(title, description, unit string, queries ...Query) *timeseries.PanelBuilder {
	return graph(title, description, unit, queries...).FillOpacity(40).
		Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A"))
}

// number shows what a value is now, green unless it is below or above a bound.
func number(title, description, unit string, query Query, steps ...dashboard.Threshold) *stat.PanelBuilder {
	panel := stat.NewPanelBuilder().
		Title(title).Description(description).Datasource(source()).Unit(unit).
		Span(4).Height(4).
		GraphMode(common.BigValueGraphModeArea).
		ColorMode(common.BigValueColorModeValue).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
		WithTarget(target(query, 0))
	if len(steps) > 0 {
		panel = panel.Thresholds(dashboard.NewThresholdsConfigBuilder().
			Mode(dashboard.ThresholdsModeAbsolute).Steps(steps))
	}
	return panel
}

// step is where a color begins.
func step(color string, from float64) dashboard.Threshold {
	return dashboard.Threshold{Color: color, Value: cog.ToPtr(from)}
}

// base is the color of what is below all steps.
func base(color string) dashboard.Threshold {
	return dashboard.Threshold{Color: color}
}

// heat shows many series over time as rows of colors.
func heat(title, description, unit string, query Query) *heatmap.PanelBuilder {
	return heatmap.NewPanelBuilder().
		Title(title).Description(description).Datasource(source()).
		Span(12).Height(9).
		Calculate(false).
		CellGap(1).
		Color(heatmap.NewHeatmapColorOptionsBuilder().Mode(heatmap.HeatmapColorModeScheme).
			Scheme("RdYlGn").Fill("dark-orange").Reverse(true).Steps(64).Scale(heatmap.HeatmapColorScaleExponential).Exponent(0.5)).
		CellValues(heatmap.NewCellValuesBuilder().Unit(unit).Decimals(2)).
		YAxis(heatmap.NewYAxisConfigBuilder().AxisPlacement(common.AxisPlacementLeft)).
		ShowLegend().
		WithTarget(target(query, 0))
}

// buckets shows how a histogram's values are spread over time.
func buckets(title, description, unit string, query Query) *heatmap.PanelBuilder {
	return heatmap.NewPanelBuilder().
		Title(title).Description(description).Datasource(source()).
		Span(8).Height(8).
		Calculate(false).
		Color(heatmap.NewHeatmapColorOptionsBuilder().Mode(heatmap.HeatmapColorModeScheme).
			Scheme("Blues").Fill("blue").Steps(64).Scale(heatmap.HeatmapColorScaleExponential).Exponent(0.5)).
		YAxis(heatmap.NewYAxisConfigBuilder().AxisPlacement(common.AxisPlacementLeft).Unit(unit)).
		ShowLegend().
		WithTarget(target(query, 0).Format(prometheus.PromQueryFormatHeatmap))
}

// states shows since when something is so or not.
func states(title, description string, query Query) *statetimeline.PanelBuilder {
	mapping := dashboard.ValueMap{
		Type: "value",
		Options: map[string]dashboard.ValueMappingResult{
			"0": {Text: cog.ToPtr("no"), Color: cog.ToPtr("red")},
			"1": {Text: cog.ToPtr("yes"), Color: cog.ToPtr("green")},
		},
	}
	return statetimeline.NewPanelBuilder().
		Title(title).Description(description).Datasource(source()).
		Span(12).Height(8).
		ShowValue(common.VisibilityModeNever).
		Mappings([]dashboard.ValueMapping{{ValueMap: &mapping}}).
		WithTarget(target(query, 0))
}

// Column is a query of a table and the heading of its values.
type Column struct {
	Heading string
	Unit    string
	Query   Query
}

// rows shows one row for each deployment; columns are joined by the labels that all of them have.
func rows(title, description string, by []string, columns ...Column) *table.PanelBuilder {
	panel := table.NewPanelBuilder().Title(title).Description(description).Datasource(source()).Span(24).Height(8)
	hidden := map[string]bool{"Time": true}
	renamed := map[string]string{}
	for number, column := range columns {
		name := string(rune('A' + number))
		panel = panel.WithTarget(target(column.Query, number).Instant().Format(prometheus.PromQueryFormatTable))
		renamed["Value #"+name] = column.Heading
		if column.Unit != "" {
			panel = panel.OverrideByName(column.Heading, []dashboard.DynamicConfigValue{{Id: "unit", Value: column.Unit}})
		}
	}
	order := map[string]int{}
	for number, label := range by {
		order[label] = number
	}
	return panel.
		WithTransformation(dashboard.DataTransformerConfig{Id: "merge", Options: map[string]any{}}).
		WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
			"excludeByName": hidden, "renameByName": renamed, "indexByName": order,
		}})
}
