package svg

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPicture(t *testing.T) {
	p := New(200, 100, "A & B")
	p.Text(10, 20, Start, Label, "1 < 2")
	p.Text(190, 20, End, Label, "isn't")
	p.Text(100, 90, Middle, Figure, "3")
	p.Rect(0, 0, 10.25, 10, Good)
	p.Line(0, 0, 10, 10, Grid)
	p.Arrow(0, 10, 10, ThinLine)
	picture, err := p.SVG()
	require.NoError(t, err)
	require.Contains(t, picture, "<title>A &amp; B</title>")
	require.Contains(t, picture, ">1 &lt; 2</text>")
	require.Contains(t, picture, ">isn't</text>")
	require.Contains(t, picture, `<rect class="good" x="0" y="0" width="10.2" height="10"/>`)
	decoder := xml.NewDecoder(strings.NewReader(picture))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
}

func TestTextsThatCannotBeRead(t *testing.T) {
	for name, row := range map[string]struct {
		x, y float64
		want string
	}{
		"beside the other one": {10, 50, ""},
		"over the other one":   {60, 50, `the texts "Hello" and "Hello" overlap`},
		"left":                 {-1, 50, `the text "Hello" leaves the picture`},
		"right":                {190, 50, "leaves the picture"},
		"above":                {10, 5, "leaves the picture"},
		"below":                {10, 99, "leaves the picture"},
	} {
		p := New(200, 100, "")
		p.Text(80, 50, Start, Label, "Hello")
		p.Text(row.x, row.y, Start, Label, "Hello")
		_, err := p.SVG()
		if row.want == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, row.want, name)
		}
	}
}

// The structure is that of a picture with other coordinates, and another one if an element,
// a style or a text differs.
func TestStructure(t *testing.T) {
	draw := func(rects int, style Style, at float64, text string) string {
		p := New(200, 100, "title")
		for i := range rects {
			p.Rect(at+float64(i), 2, 3, 4, style)
		}
		p.Line(at, 2, 3, 4, GoodLine)
		p.Text(at+10, 20, Start, Label, text)
		p.Text(at+10, 60, Start, Figure, fmt.Sprint(at))
		p.Text(at+10, 80, Start, Value, fmt.Sprint(at))
		picture, err := p.SVG()
		require.NoError(t, err)
		return Structure(picture)
	}
	want := draw(1, Good, 5, "7 calls")
	require.Equal(t, want, draw(3, Good, 6.5, "7 calls"))
	require.NotEqual(t, want, draw(1, Bad, 5, "7 calls"))
	require.NotEqual(t, want, draw(0, Good, 5, "7 calls"))
	require.NotEqual(t, want, draw(1, Good, 5, "8 calls"))
}
