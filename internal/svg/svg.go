// Package svg draws the pictures in the documentation, for the tests that make them. A
// picture has its own background, and follows the reader's choice of light or dark colours.
package svg

import (
	"encoding/xml"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A Style is the class of what is drawn: the colour of an area, a line or a text. Colours
// have names by what they mean, so that they mean the same in all pictures.
type Style string

// Areas and lines. Line styles are for Line and Path, the others for Area and Rect.
const (
	Good     Style = "good"      // a call that succeeded at once, a token that is fresh
	Late     Style = "late"      // a call that waited
	Bad      Style = "bad"       // a call that failed, a token that expired
	Stale    Style = "stale"     // a token that is due to be replaced
	Down     Style = "down"      // a period without an authorization server
	Box      Style = "box"       // a place
	GoodLine Style = "line good" // as Good
	LateLine Style = "line late" // as Late
	BadLine  Style = "line bad"  // as Bad
	ThinLine Style = "line thin" // axes
	Grid     Style = "line grid" // what helps the eye
)

// Texts. Figure and Value are for what was measured, and may be another text each time that
// the picture is drawn.
const (
	Title  Style = "title"
	Label  Style = "label"
	Note   Style = "note"
	Small  Style = "small"
	Figure Style = "figure" // large
	Value  Style = "value"  // small
)

// Series returns the style of a line that is one of several in a diagram, and of the area that
// stands for it in the key. There are 7 of them.
func Series(n int) (line, area Style) {
	return Style(fmt.Sprintf("line s%d", n%7)), Style(fmt.Sprintf("s%d", n%7))
}

// An Anchor says which point of a text is at its position.
type Anchor string

// Anchors of a text.
const (
	Start  Anchor = "start"
	Middle Anchor = "middle"
	End    Anchor = "end"
)

// sizes are the heights of letters in pixels.
var sizes = map[Style]float64{Title: 15, Label: 13, Note: 12, Small: 11, Figure: 22, Value: 11}

const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d" role="img">
<title>%[3]s</title>
<style>
text{font-family:'Liberation Sans',Arial,Helvetica,sans-serif;fill:#1f2328}
.title{font-size:15px;font-weight:bold}.label{font-size:13px}.note{font-size:12px;fill:#59636e}.small,.value{font-size:11px;fill:#59636e}.figure{font-size:22px;font-weight:bold}
.back{fill:#fff}.good{fill:#4c9be8}.late{fill:#e0a526}.bad{fill:#d1453b}.stale{fill:#9ec9f5}.down{fill:#d1453b;fill-opacity:.13}.box{fill:#eef1f4;stroke:#818b98}
path.line{fill:none;stroke-width:1.6}.line.good{stroke:#1b6fc8}.line.late{stroke:#b07c08}.line.bad{stroke:#d1453b}.line.thin{stroke:#818b98;stroke-width:1}.line.grid{stroke:#818b98;stroke-width:1;stroke-opacity:.3}
.s0{fill:#1b6fc8}.line.s0{stroke:#1b6fc8}.s1{fill:#b07c08}.line.s1{stroke:#b07c08}.s2{fill:#d1453b}.line.s2{stroke:#d1453b}.s3{fill:#2f8f4e}.line.s3{stroke:#2f8f4e}.s4{fill:#8250df}.line.s4{stroke:#8250df}.s5{fill:#c2438f}.line.s5{stroke:#c2438f}.s6{fill:#4d7b85}.line.s6{stroke:#4d7b85}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.note,.small,.value{fill:#9aa4af}
.back{fill:#0d1117}.good{fill:#3d8ad6}.late{fill:#d29922}.bad{fill:#e5534b}.stale{fill:#24507e}.down{fill:#e5534b;fill-opacity:.22}.box{fill:#1c2229;stroke:#7d8590}
.line.good{stroke:#58a6ff}.line.late{stroke:#d29922}.line.bad{stroke:#f47067}.line.thin{stroke:#7d8590}.line.grid{stroke:#7d8590}
.s0{fill:#58a6ff}.line.s0{stroke:#58a6ff}.s1{fill:#d29922}.line.s1{stroke:#d29922}.s2{fill:#f47067}.line.s2{stroke:#f47067}.s3{fill:#57ab5a}.line.s3{stroke:#57ab5a}.s4{fill:#b083f0}.line.s4{stroke:#b083f0}.s5{fill:#e275ad}.line.s5{stroke:#e275ad}.s6{fill:#76b3bf}.line.s6{stroke:#76b3bf}
}
</style>
<rect class="back" width="%[1]d" height="%[2]d"/>
`

// A Picture is an SVG file in the making. Coordinates are pixels from the upper left corner.
type Picture struct {
	width, height int
	b             strings.Builder
	texts         []placed
}

// A placed is a text with the rectangle that it takes up.
type placed struct {
	text                     string
	left, top, right, bottom float64
}

// New returns a picture of that size. Programs that read pages aloud say its title.
func New(width, height int, title string) *Picture {
	p := &Picture{width: width, height: height}
	fmt.Fprintf(&p.b, head, width, height, escape(title))
	return p
}

// Text draws a line of text. y is where its letters stand.
func (p *Picture) Text(x, y float64, anchor Anchor, style Style, text string) {
	size := sizes[style]
	width := float64(len([]rune(text))) * size * 0.52 // of these fonts, on average
	left := x
	switch anchor {
	case Start:
	case Middle:
		left -= width / 2
	case End:
		left -= width
	}
	p.texts = append(p.texts, placed{text, left, y - 0.75*size, left + width, y + 0.2*size})
	fmt.Fprintf(&p.b, "<text class=\"%s\" x=\"%s\" y=\"%s\" text-anchor=\"%s\">%s</text>\n", style, number(x), number(y), anchor, escape(text))
}

// Rect draws a rectangle.
func (p *Picture) Rect(x, y, width, height float64, style Style) {
	fmt.Fprintf(&p.b, "<rect class=\"%s\" x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\"/>\n", style, number(x), number(y), number(width), number(height))
}

// Line draws a line.
func (p *Picture) Line(x1, y1, x2, y2 float64, style Style) {
	var path Path
	path.Move(x1, y1)
	path.To(x2, y2)
	p.Draw(&path, style)
}

// Arrow draws a line with a head at its end, from left to right.
func (p *Picture) Arrow(x1, x2, y float64, style Style) {
	var path Path
	path.Move(x1, y)
	path.To(x2, y)
	path.Move(x2-6, y-4)
	path.To(x2, y)
	path.To(x2-6, y+4)
	p.Draw(&path, style)
}

// Draw draws path, which may be empty.
func (p *Picture) Draw(path *Path, style Style) {
	fmt.Fprintf(&p.b, "<path class=\"%s\" d=\"%s\"/>\n", style, path.b.String())
}

// A Path is any number of lines or areas. They take less space in one path than in many
// elements.
type Path struct{ b strings.Builder }

// Move begins another line at a point.
func (p *Path) Move(x, y float64) { fmt.Fprintf(&p.b, "M%s %s", number(x), number(y)) }

// To draws a line to a point.
func (p *Path) To(x, y float64) { fmt.Fprintf(&p.b, "L%s %s", number(x), number(y)) }

// Rect adds a rectangle.
func (p *Path) Rect(x, y, width, height float64) {
	fmt.Fprintf(&p.b, "M%s %sh%sv%sh%sz", number(x), number(y), number(width), number(height), number(-width))
}

// SVG returns the file. It returns an error if a text overlaps another one or doesn't fit
// into the picture, as far as that can be told without the font.
func (p *Picture) SVG() (string, error) {
	for i, a := range p.texts {
		if a.left < 0 || a.top < 0 || a.right > float64(p.width) || a.bottom > float64(p.height) {
			return "", fmt.Errorf("svg: the text %q leaves the picture; move or shorten it", a.text)
		}
		for _, b := range p.texts[:i] {
			if a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom {
				return "", fmt.Errorf("svg: the texts %q and %q overlap; move or shorten one", b.text, a.text)
			}
		}
	}
	return p.b.String() + "</svg>\n", nil
}

var (
	coordinates = regexp.MustCompile(` (?:x|y|width|height|d)="[^"]*"`)
	measured    = regexp.MustCompile(`(<text class="(?:figure|value)"[^>]*>)[^<]*`)
)

// Structure returns what two pictures of the same kind have in common: their elements and
// texts, without coordinates and without what was measured. Of equal elements in a row only
// one is left.
func Structure(svg string) string {
	var b strings.Builder
	last := ""
	for line := range strings.Lines(measured.ReplaceAllString(coordinates.ReplaceAllString(svg, ""), "$1")) {
		if line != last {
			b.WriteString(line)
		}
		last = line
	}
	return b.String()
}

// number returns a coordinate, rounded to a tenth of a pixel.
func number(x float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(x, 'f', 1, 64), ".0")
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // A Builder takes everything.
	return strings.ReplaceAll(b.String(), "&#39;", "'")
}
