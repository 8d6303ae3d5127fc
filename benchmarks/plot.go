package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"slices"
	"time"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The plots are transparent. So each colour can be seen on white and on black.
var (
	gray   = color.NRGBA{0x7a, 0x7a, 0x7a, 0xff} // text and axes
	faint  = color.NRGBA{0x7a, 0x7a, 0x7a, 0x40} // grid
	blue   = color.NRGBA{0x2f, 0x81, 0xf7, 0xff} // calls
	red    = color.NRGBA{0xe5, 0x48, 0x3d, 0xff} // failed calls
	amber  = color.NRGBA{0xd2, 0x8b, 0x10, 0x60} // token requests
	redish = color.NRGBA{0xe5, 0x48, 0x3d, 0x28} // an outage
)

const (
	plotWidth   = 18 * vg.Centimeter
	panelHeight = 4.8 * vg.Centimeter
	keyHeight   = 0.6 * vg.Centimeter

	// The range of the vertical axis in seconds. Calls outside are drawn at its ends.
	fastest = 300e-9
	slowest = 3

	// A longer call is also drawn as a line, as long as the call took.
	longCall = 100 * time.Millisecond
)

// A mark is an entry of the key.
type mark struct {
	label string
	draw  func(c draw.Canvas) // within a rectangle
}

func (r *results) refreshPlot() ([]byte, error) {
	return panels(r.plan.refresh, r.refresh, []mark{
		{"call", dotMark},
		{"token request", bandMark(amber)},
	})
}

func (r *results) outagePlot() ([]byte, error) {
	return panels(r.plan.outage, r.outage, []mark{
		{"call", dotMark},
		{"failed call", crossMark},
		{"authorization server down", bandMark(redish)},
		{"expiry of the first token", dashMark},
	})
}

// panels draws how long calls take: with upstream above, and below with this package in
// the same program.
func panels(p lifePlan, timelines []timeline, key []mark) ([]byte, error) {
	var column [][]*plot.Plot
	for _, peer := range []peer{upstreamPeer, dropInPeer} {
		t := timelines[slices.IndexFunc(timelines, func(t timeline) bool { return t.peer == peer.name })]
		column = append(column, []*plot.Plot{p.panel(t)})
	}
	column[1][0].X.Label.Text = "seconds since the first token"

	svg := vgsvg.New(plotWidth, 2*panelHeight+keyHeight)
	canvas := draw.New(svg)
	drawKey(draw.Crop(canvas, 0, 0, 0, -2*panelHeight), key)
	tiles := draw.Tiles{Rows: 2, Cols: 1, PadBottom: 2, PadLeft: 2, PadRight: 8, PadY: 4}
	titles := []string{"golang.org/x/oauth2/clientcredentials", "the same program with this package"}
	var title text.Style
	style(&title, 10, xfont.WeightBold)
	for i, row := range plot.Align(column, tiles, draw.Crop(canvas, 0, 0, keyHeight, 0)) {
		panel := column[i][0]
		panel.Draw(row[0])
		data := panel.DataCanvas(row[0])
		canvas.FillText(title, vg.Point{X: data.Min.X, Y: data.Max.Y + 7}, titles[i])
	}
	var b bytes.Buffer
	if _, err := svg.WriteTo(&b); err != nil {
		return nil, err
	}
	// If that font is missing, use another one without serifs.
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif;")), nil
}

// style sets the font and the colour of a text. It doesn't change the alignment.
func style(s *text.Style, size vg.Length, weight xfont.Weight) {
	s.Color = gray
	s.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Weight: weight, Size: size}
	s.Handler = plot.DefaultTextHandler
}

func (p lifePlan) panel(t timeline) *plot.Plot {
	panel := plot.New()
	panel.BackgroundColor = nil
	for _, axis := range []*plot.Axis{&panel.X, &panel.Y} {
		axis.Color, axis.Tick.Color = gray, gray
		style(&axis.Label.TextStyle, 9, xfont.WeightNormal)
		style(&axis.Tick.Label, 8, xfont.WeightNormal)
	}
	panel.X.Min, panel.X.Max = 0, p.end.Seconds()
	panel.X.Tick.Marker = everySecond(p.end)
	panel.Y.Min, panel.Y.Max = fastest, slowest
	panel.Y.Scale = plot.LogScale{}
	panel.Y.Tick.Marker = latencies
	panel.Y.Label.Text = "time of a call"
	panel.Y.Label.Padding = 4

	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = nil, faint
	panel.Add(grid)
	if p.down != 0 {
		panel.Add(band{p.down.Seconds(), p.up.Seconds(), redish}, expiry(p.life.Seconds()))
	} else {
		for _, r := range t.requests {
			panel.Add(band{r.at.Seconds(), min(r.at+r.took, p.end).Seconds(), amber})
		}
	}
	panel.Add(calls(t.calls))
	return panel
}

// A band is a period of time, drawn over the whole height.
type band struct {
	from, to float64
	color    color.Color
}

// Plot implements plot.Plotter.
func (b band) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	c.SetColor(b.color)
	c.Fill(vg.Rectangle{Min: vg.Point{X: x(b.from), Y: c.Min.Y}, Max: vg.Point{X: x(b.to), Y: c.Max.Y}}.Path())
}

// An expiry is a point in time, drawn as a vertical line.
type expiry float64

var dashes = draw.LineStyle{Color: gray, Width: 1, Dashes: []vg.Length{3, 3}}

// Plot implements plot.Plotter.
func (e expiry) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	c.StrokeLine2(dashes, x(float64(e)), c.Min.Y, x(float64(e)), c.Max.Y)
}

// calls are drawn as points, and long ones also as lines. All marks of a kind are one
// path, which keeps the file small.
type calls []call

const (
	dotRadius   = 1.3
	crossRadius = 1.7
)

// Plot implements plot.Plotter.
func (all calls) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	var dots, crosses, lines, failedLines vg.Path
	for _, call := range all {
		at := vg.Point{X: x(call.at.Seconds()), Y: y(min(max(call.took.Seconds(), fastest), slowest))}
		if call.failed {
			addCross(&crosses, at)
		} else {
			addDot(&dots, at)
		}
		if call.took >= longCall {
			path := &lines
			if call.failed {
				path = &failedLines
			}
			path.Move(at)
			path.Line(vg.Point{X: min(x((call.at + call.took).Seconds()), c.Max.X), Y: at.Y})
		}
	}
	fillDots(c, dots)
	strokeAll(c, lines, blue, 1.2)
	strokeAll(c, failedLines, red, 1.2)
	strokeAll(c, crosses, red, 0.7)
}

func addDot(path *vg.Path, at vg.Point) {
	path.Move(at.Add(vg.Point{X: dotRadius}))
	path.Arc(at, dotRadius, 0, 2*math.Pi)
}

func addCross(path *vg.Path, at vg.Point) {
	path.Move(at.Add(vg.Point{X: -crossRadius, Y: -crossRadius}))
	path.Line(at.Add(vg.Point{X: crossRadius, Y: crossRadius}))
	path.Move(at.Add(vg.Point{X: -crossRadius, Y: crossRadius}))
	path.Line(at.Add(vg.Point{X: crossRadius, Y: -crossRadius}))
}

func fillDots(c draw.Canvas, dots vg.Path) {
	if len(dots) == 0 {
		return
	}
	c.SetColor(blue)
	c.Fill(dots)
}

func strokeAll(c draw.Canvas, lines vg.Path, in color.Color, width vg.Length) {
	if len(lines) == 0 {
		return
	}
	c.SetLineStyle(draw.LineStyle{Color: in, Width: width})
	c.Stroke(lines)
}

// drawKey draws the key in one line.
func drawKey(c draw.Canvas, key []mark) {
	const markWidth, gap = 14, 5
	var label text.Style
	style(&label, 8, xfont.WeightNormal)
	label.XAlign, label.YAlign = draw.XLeft, draw.YCenter
	x, middle := c.Min.X+2.2*vg.Centimeter, c.Center().Y
	for _, m := range key {
		m.draw(draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: x, Y: middle - 4},
			Max: vg.Point{X: x + markWidth, Y: middle + 4},
		}})
		x += markWidth + gap
		c.FillText(label, vg.Point{X: x, Y: middle}, m.label)
		x += label.Width(m.label) + 4*gap
	}
}

func dotMark(c draw.Canvas) {
	var dots vg.Path
	addDot(&dots, c.Center())
	fillDots(c, dots)
}

func crossMark(c draw.Canvas) {
	var crosses vg.Path
	addCross(&crosses, c.Center())
	strokeAll(c, crosses, red, 0.7)
}

func bandMark(in color.Color) func(draw.Canvas) {
	return func(c draw.Canvas) {
		c.SetColor(in)
		c.Fill(c.Path())
	}
}

func dashMark(c draw.Canvas) {
	c.StrokeLine2(dashes, c.Min.X, c.Center().Y, c.Max.X, c.Center().Y)
}

// everySecond returns the ticks of the horizontal axis.
func everySecond(end time.Duration) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for s := range int(end.Seconds()) + 1 {
		tick := plot.Tick{Value: float64(s)}
		if s%5 == 0 {
			tick.Label = fmt.Sprint(s)
		}
		ticks = append(ticks, tick)
	}
	return ticks
}

var latencies = plot.ConstantTicks{
	{Value: 1e-6, Label: "1 µs"},
	{Value: 10e-6},
	{Value: 100e-6, Label: "100 µs"},
	{Value: 1e-3},
	{Value: 10e-3, Label: "10 ms"},
	{Value: 100e-3},
	{Value: 1, Label: "1 s"},
}
