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

// A picture has a row for each contender, in the order of the tables.
type picture struct {
	file, title string
	svg         []byte
}

// A chart is a picture that is being drawn.
type chart struct {
	*plot.Plot
	row map[string]float64 // of a contender, from the bottom
}

const fontFamily = "Liberation Sans" // is where gonum takes the width of letters from

var (
	red    = color.RGBA{0xd6, 0x27, 0x28, 0xff}
	grey   = color.RGBA{0xbb, 0xbb, 0xbb, 0xff}
	orange = color.RGBA{0xff, 0x7f, 0x0e, 0xff}
	blues  = []color.RGBA{{0x9e, 0xca, 0xe1, 0xff}, {0x42, 0x92, 0xc6, 0xff}, {0x08, 0x51, 0x9c, 0xff}, {0x05, 0x1c, 0x44, 0xff}}
)

// drawAll draws the pictures for which everything has been measured.
func drawAll(b *bench, results map[string]*result) ([]picture, error) {
	var pictures []picture
	for _, p := range []struct {
		file string
		draw func(*bench, map[string]*result) (*chart, error)
	}{{"handoff.svg", latencies}, {"waiting.svg", costs}, {"throughput.svg", rates}} {
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

// latencies draws a box with the middle half of the hand-offs, which the median divides.
func latencies(b *bench, results map[string]*result) (*chart, error) {
	r := results["handoff"]
	if r == nil {
		return nil, nil
	}
	c := newChart("Latency of the hand-off after a hold of "+length(b.hold), r.entrants)
	for _, e := range r.entrants {
		v := each(e, nanos)
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

// costs draws a dot for each number of goroutines that wait.
func costs(b *bench, results map[string]*result) (*chart, error) {
	r, many, more := results["cpu"], results["waiters12k"], results["waiters100k"]
	if r == nil || many == nil || more == nil {
		return nil, nil
	}
	c := newChart("CPU time that a process takes in each second while goroutines wait", r.entrants)
	for i, dots := range []struct {
		goroutines int
		*result
		reply int // of a round
	}{{few[0], r, 0}, {few[1], r, 1}, {b.many[0], many, 0}, {b.many[1], more, 0}} {
		var xys plotter.XYs
		for name, row := range c.row {
			if v := median(only(dots.reply, load))(dots.named(name)) * 1e9; !math.IsNaN(v) {
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
	c.X.Max *= 5 // is room for the legend
	c.logarithmic()
	return c, nil
}

// rates draws a bar for each of two measures.
func rates(_ *bench, results map[string]*result) (*chart, error) {
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

// logarithmic lets the x axis begin and end with a power of ten.
func (c *chart) logarithmic() {
	c.X.Min = math.Pow(10, math.Floor(math.Log10(c.X.Min)))
	c.X.Max = math.Pow(10, math.Ceil(math.Log10(c.X.Max)))
	c.X.Scale, c.X.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
}

// decades has a mark at each power of ten.
func decades(lo, hi float64) []plot.Tick {
	var ticks []plot.Tick
	for v := lo; v < hi*1.01; v *= 10 {
		ticks = append(ticks, plot.Tick{Value: v, Label: brief(duration(v))})
		for i := 2.0; i < 10 && i*v < hi; i++ {
			ticks = append(ticks, plot.Tick{Value: i * v})
		}
	}
	return ticks
}

// wholeNumbers has the marks that there are anyway, without the zeros behind the point.
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
	svg := vgsvg.NewWith(vgsvg.UseWH(width, height), vgsvg.EmbedFonts(false)) // else it is many times as large
	all := draw.New(svg)
	all.SetColor(color.White) // for those who read on black
	all.Fill(all.Rectangle.Path())
	margin := vg.Points(8)
	c.Draw(draw.Crop(all, margin, -3*margin, margin, -margin))
	var out bytes.Buffer
	if _, err := svg.WriteTo(&out); err != nil {
		return nil, err
	}
	// Not everybody has that font, but a browser has one with letters as wide.
	return bytes.ReplaceAll(out.Bytes(), []byte(fontFamily), []byte(fontFamily+",Arial,Helvetica,sans-serif")), nil
}
