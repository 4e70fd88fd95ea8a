//go:build linux

package main

import (
	"bytes"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A picture is a finished chart, with a row for each contender in the order of the tables.
type picture struct {
	file, title string
	svg         []byte
}

// A chart is a picture that is being drawn.
type chart struct {
	*plot.Plot
	row map[string]float64 // of a contender, from the bottom
}

// fontFamily is the font whose metrics gonum uses.
const fontFamily = "Liberation Sans"

var (
	red    = color.RGBA{0xd6, 0x27, 0x28, 0xff}
	grey   = color.RGBA{0xbb, 0xbb, 0xbb, 0xff}
	orange = color.RGBA{0xff, 0x7f, 0x0e, 0xff}
	blues  = []color.RGBA{
		{0x9e, 0xca, 0xe1, 0xff}, {0x42, 0x92, 0xc6, 0xff},
		{0x08, 0x51, 0x9c, 0xff}, {0x05, 0x1c, 0x44, 0xff},
	}
)

// drawAll draws the charts for which all results are there.
func drawAll(b *bench, results map[string]*result) ([]picture, error) {
	var pictures []picture
	for _, p := range []struct {
		file string
		draw func(*bench, map[string]*result) (*chart, error)
	}{{"handoff.svg", drawHandoffs}, {"waiting.svg", drawWaiting}, {"throughput.svg", drawThroughput}} {
		c, err := p.draw(b, results)
		if err != nil {
			return pictures, err
		}
		if c == nil {
			continue
		}
		svg, err := c.svg()
		if err != nil {
			return pictures, err
		}
		pictures = append(pictures, picture{p.file, c.Title.Text, svg})
	}
	return pictures, nil
}

// drawHandoffs draws a box plot of the hand-offs of each contender.
func drawHandoffs(b *bench, results map[string]*result) (*chart, error) {
	r := results["handoff"]
	if r == nil {
		return nil, nil
	}
	c := newChart("Latency of the hand-off after a hold of "+plainDuration(b.hold), r.entrants)
	for _, e := range r.entrants {
		v := perRound(e, nanos)
		if len(v) == 0 {
			continue
		}
		box, err := plotter.NewBoxPlot(vg.Points(10), c.row[e.name], plotter.Values(v))
		if err != nil {
			return nil, err
		}
		box.Horizontal, box.FillColor, box.GlyphStyle.Radius = true, grey, vg.Points(1.5)
		if e.name == oursName {
			box.FillColor = red
		}
		c.Add(box)
	}
	c.logarithmic()
	return c, nil
}

// drawWaiting draws a dot for each number of waiting goroutines.
func drawWaiting(b *bench, results map[string]*result) (*chart, error) {
	r, many, more := results["cpu"], results["waiters12k"], results["waiters100k"]
	if r == nil || many == nil || more == nil {
		return nil, nil
	}
	c := newChart("CPU time that a process takes in each second while goroutines wait", r.entrants)
	for i, dots := range []struct {
		goroutines int
		*result
		reply int // index in a round
	}{{waiterCounts[0], r, 0}, {waiterCounts[1], r, 1}, {b.many[0], many, 0}, {b.many[1], more, 0}} {
		var xys plotter.XYs
		for name, row := range c.row {
			if v := median(ofReply(dots.reply, load))(dots.named(name)) * 1e9; !math.IsNaN(v) {
				xys = append(xys, plotter.XY{X: max(v, 1), Y: row + 0.3 - 0.2*float64(i)})
			}
		}
		scatter, err := plotter.NewScatter(xys)
		if err != nil {
			return nil, err
		}
		scatter.GlyphStyle = draw.GlyphStyle{Color: blues[i], Radius: vg.Points(3), Shape: draw.CircleGlyph{}}
		c.Add(scatter)
		c.Legend.Add(plural(dots.goroutines, "goroutine"), scatter)
	}
	c.X.Max *= 5 // room for the legend
	c.logarithmic()
	return c, nil
}

// drawThroughput draws a bar for goroutines and one for processes.
func drawThroughput(_ *bench, results map[string]*result) (*chart, error) {
	goroutines, processes := results["goroutines"], results["processes"]
	if goroutines == nil || processes == nil {
		return nil, nil
	}
	c := newChart("Throughput: thousands of acquire and release in a second", processes.entrants)
	c.X.Min, c.X.Tick.Marker = 0, plot.TickerFunc(wholeNumbers)
	const width = 7
	for i, r := range []*result{goroutines, processes} {
		bars := make(plotter.Values, len(c.row))
		for name, row := range c.row {
			if v := median(rate)(r.named(name)); !math.IsNaN(v) {
				bars[int(row)] = v / 1000
			}
		}
		bar, err := plotter.NewBarChart(bars, vg.Points(width))
		if err != nil {
			return nil, err
		}
		bar.Horizontal, bar.LineStyle.Width = true, 0
		bar.Color = []color.Color{blues[1], orange}[i]
		bar.Offset = vg.Points(width * (0.5 - float64(i)))
		c.Add(bar)
		c.Legend.Add(r.title, bar)
	}
	return c, nil
}

func newChart(title string, es []*entrant) *chart {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	c := &chart{plot.New(), map[string]float64{}}
	c.Title.Text, c.Title.Padding = title, vg.Points(8)
	c.Legend.Padding, c.Legend.TextStyle.Font.Size = vg.Points(3), vg.Points(10)
	names := make([]string, len(es))
	for i, e := range es {
		row := len(es) - 1 - i
		c.row[e.name], names[row] = float64(row), e.name
	}
	c.NominalY(names...)
	c.Y.Min, c.Y.Max = -0.6, float64(len(es))-0.4
	grid := plotter.NewGrid()
	grid.Horizontal.Width = 0
	c.Add(grid)
	return c
}

// logarithmic makes the x axis logarithmic, from one power of ten to another.
func (c *chart) logarithmic() {
	c.X.Min = math.Pow(10, math.Floor(math.Log10(c.X.Min)))
	c.X.Max = math.Pow(10, math.Ceil(math.Log10(c.X.Max)))
	c.X.Scale, c.X.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
}

// decades returns ticks, those at powers of ten with labels.
func decades(lo, hi float64) []plot.Tick {
	var ticks []plot.Tick
	for v := lo; v < hi*1.01; v *= 10 {
		ticks = append(ticks, plot.Tick{Value: v, Label: trimZeros(duration(v))})
		for i := 2.0; i < 10 && i*v < hi; i++ {
			ticks = append(ticks, plot.Tick{Value: i * v})
		}
	}
	return ticks
}

// wholeNumbers returns the default ticks, with labels that have no fraction.
func wholeNumbers(lo, hi float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(lo, hi)
	for i, t := range ticks {
		if !t.IsMinor() {
			ticks[i].Label = number(t.Value)
		}
	}
	return ticks
}

func (c *chart) svg() ([]byte, error) {
	width, height := 22*vg.Centimeter, vg.Length(len(c.row))*0.75*vg.Centimeter+2.5*vg.Centimeter
	// Embedded fonts would make the file many times as large.
	svg := vgsvg.NewWith(vgsvg.UseWH(width, height), vgsvg.EmbedFonts(false))
	all := draw.New(svg)
	all.SetColor(color.White) // for pages with a dark background
	all.Fill(all.Rectangle.Path())
	margin := vg.Points(8)
	c.Draw(draw.Crop(all, margin, -3*margin, margin, -margin))
	var out bytes.Buffer
	if _, err := svg.WriteTo(&out); err != nil {
		return nil, err
	}
	// Where that font is missing, the browser uses one with the same metrics.
	fonts := []byte(fontFamily + ",Arial,Helvetica,sans-serif")
	return bytes.ReplaceAll(out.Bytes(), []byte(fontFamily), fonts), nil
}
