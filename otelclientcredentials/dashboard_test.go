package otelclientcredentials

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// A dashboard is what dashboard.json has that is checked and drawn.
type dashboard struct {
	Title      string
	Templating struct {
		List []struct {
			Name, Type, Definition string
		}
	}
	Panels []panel
}

type panel struct {
	ID          int
	Type, Title string
	Description string
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct {
		Defaults struct{ Unit string }
	}
	Targets []struct {
		Expr, LegendFormat string
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &d))
	return d
}

// promName returns the name of a label, or the first part of that of a metric, as the
// Prometheus exporter of OpenTelemetry writes it.
func promName(name string) string { return strings.ReplaceAll(name, ".", "_") }

// promNames returns the names of m for Prometheus, each with its values of le if it has any.
// Units in braces aren't part of a name.
func promNames(m metricdata.Metrics) []string {
	name := promName(m.Name)
	if m.Unit == "s" {
		name += "_seconds"
	}
	switch m.Data.(type) {
	case metricdata.Sum[int64]:
		return []string{name + "_total"}
	case metricdata.Histogram[float64]:
		return []string{name + "_bucket", name + "_sum", name + "_count"}
	}
	return []string{name}
}

// Each name in a query of the dashboard is the name of a metric, each of its labels is one
// that the metric has, and each value is one that the label can have. And each metric and
// each attribute has a panel.
func TestDashboard(t *testing.T) {
	labels := map[string]map[string]map[string]bool{} // the values of each label of each metric
	unused := map[string]bool{}                       // metrics and labels that no panel shows
	collected, _ := everything(t)
	for _, m := range collected {
		unused[m.Name] = true
		values := map[string]map[string]bool{"job": {}, "clientcredentials_name": {}} // from Prometheus, and from WithAttributes
		for _, p := range points(m) {
			for _, a := range p.attributes.ToSlice() {
				label := promName(string(a.Key))
				if values[label] == nil {
					values[label] = map[string]bool{}
				}
				values[label][fmt.Sprint(a.Value.AsInterface())] = true
				unused[label] = true
			}
		}
		for _, name := range promNames(m) {
			labels[name] = maps.Clone(values)
			if strings.HasSuffix(name, "_bucket") {
				labels[name]["le"] = map[string]bool{}
			}
		}
	}

	d := readDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			query := parseQuery(target.Expr)
			require.Subset(t, query.grouping(), legendLabels(target.LegendFormat), "%s: the legend needs what the query doesn't have", p.Title)
			query.walk(nil, func(selector *promQuery, used []string) {
				require.NotNil(t, labels[selector.metric], "%s: there is no metric %s", p.Title, selector.metric)
				for _, label := range used {
					require.NotNil(t, labels[selector.metric][label], "%s: %s has no label %s", p.Title, selector.metric, label)
					delete(unused, label)
				}
				for _, m := range selector.matches {
					if m.value != "" && !strings.HasPrefix(m.value, "$") {
						require.True(t, labels[selector.metric][m.label][m.value], "%s: %s is never %s", p.Title, m.label, m.value)
					}
				}
				for _, m := range collected {
					if slices.Contains(promNames(m), selector.metric) {
						delete(unused, m.Name)
					}
				}
			})
		}
	}
	require.Empty(t, unused, "a metric or a label without a panel in dashboard.json")

	for _, v := range d.Templating.List {
		if m := regexp.MustCompile(`^label_values\((\w+)`).FindStringSubmatch(v.Definition); m != nil {
			require.NotNil(t, labels[m[1]], v.Name)
		} else {
			require.Equal(t, "datasource", v.Type, v.Name)
		}
	}
}

// legendLabels returns the labels that the legend of a query needs.
func legendLabels(format string) (labels []string) {
	for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(format, -1) {
		labels = append(labels, m[1])
	}
	return labels
}

// What Grafana needs of every panel: an id of its own, and a place where no other one is.
func TestDashboardLayout(t *testing.T) {
	type cell struct{ x, y int }
	taken := map[cell]string{}
	ids := map[int]bool{}
	for _, p := range readDashboard(t).Panels {
		require.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := cell{p.GridPos.X + x, p.GridPos.Y + y}
				require.Empty(t, taken[at], p.Title)
				taken[at] = p.Title
			}
		}
		if p.Type != "row" {
			require.NotEmpty(t, p.Description, p.Title)
			require.NotEmpty(t, p.FieldConfig.Defaults.Unit, p.Title)
			require.NotEmpty(t, p.Targets, p.Title)
		}
	}
}
