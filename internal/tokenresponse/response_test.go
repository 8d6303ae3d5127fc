package tokenresponse

import (
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// refresh_in is no member of RFC 6749: what can't be read isn't there.
func TestRefreshIn(t *testing.T) {
	for text, want := range map[string]int64{
		"1800": 1800, "1800.9": 1800, `"1800"`: 1800, `"soon"`: 0, "true": 0, "null": 0, `""`: 0, "1e999": maxSeconds, "[1]": 0,
	} {
		t.Run(text, func(t *testing.T) {
			parsed, _, err := Parse([]byte(`{"access_token":"a","refresh_in":`+text+`}`), "application/json", true)
			require.NoError(t, err)
			require.Equal(t, want, parsed.RefreshIn)
		})
	}
	parsed, _, err := Parse([]byte("access_token=a&refresh_in=soon"), "application/x-www-form-urlencoded", true)
	require.NoError(t, err)
	require.Zero(t, parsed.RefreshIn)
}

func TestParseSeconds(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "0": 0, "00": 0, "-0": 0, "+0": 0, "0.0": 0, "1": 1, "01": 1, "+1": 1, "-1": -1, "1.": 1, ".5": 1, "-.5": -1,
		"1.999": 1, "-1.001": -2, "1e0": 1, "12e1": 120, "9e9": maxSeconds, "-9e9": -maxSeconds,
		"2147483646.9": maxSeconds - 1, "2147483647.9": maxSeconds, "-2147483646.1": -maxSeconds,
	} {
		seconds, err := parseSeconds(text)
		require.NoError(t, err, text)
		require.Equal(t, want, seconds, text)
	}
	for _, text := range []string{
		" ", "-", "+", ".", "e", "e5", "1e", "1e+", "1.2.3", "--1", "+-1", "1-1", "0x1", "0x1p3", "0b1", "0o7", "1_0", "_1", "nan", "NaN",
		"inf", "-Inf", "+infinity", "1 ", " 1", "1\n", "1\x00", "cAnAry", "1,5", "\u0661", "\uff11", "1f", "1d",
	} {
		_, err := parseSeconds(text)
		require.EqualError(t, err, "is not a number", "%q", text)
	}
}

// FuzzSeconds reads two texts as numbers of seconds.
func FuzzSeconds(f *testing.F) {
	for _, text := range []string{
		"", "0", "-0", "1", "3600", "3600.0", "3600.5", "1e3", "0.5", "-0.5", "1e-400", "-1", "10", "2147483647", "2147483648", "-2147483648", "-2147483649",
		"99999999999", "-9223372036854775808", "1e999", "-1e999", "abc", "01", "+5", ".5", "5.", "0x10", "1_0", "NaN", "Inf", " 1", "1 ", "\u0661", "true", "null", "{}",
	} {
		f.Add(text, "3600")
		f.Add("2147483647.5", text)
	}
	f.Fuzz(func(t *testing.T, text, other string) {
		if max(len(text), len(other)) > 10_000 {
			t.Skip("nothing new")
		}
		seconds, err := parseSeconds(text)
		checkSeconds(t, text, seconds, err)

		// Greater texts give no smaller number.
		if otherSeconds, otherErr := parseSeconds(other); err == nil && otherErr == nil && text != "" && other != "" {
			x, y := exactly(text), exactly(other)
			if x != nil && y != nil && x.Cmp(y) <= 0 {
				require.LessOrEqual(t, seconds, otherSeconds, "%q is not more than %q", text, other)
			}
		}
	})
}

// checkSeconds compares what parseSeconds returns with arithmetic of more digits.
func checkSeconds(t *testing.T, text string, seconds int64, err error) {
	if text == "" {
		require.NoError(t, err)
		require.Zero(t, seconds)
		return
	}
	require.Equal(t, isDecimal(text), err == nil, "%q: %v", text, err)
	if err != nil {
		require.EqualError(t, err, "is not a number")
		return
	}
	number := exactly(text)
	if number == nil {
		return
	}
	limit := big.NewFloat(maxSeconds)
	switch {
	case number.Sign() == 0:
		require.Zero(t, seconds, "%q", text)
	case number.Cmp(limit) >= 0:
		require.EqualValues(t, maxSeconds, seconds, "%q", text)
	case number.Cmp(new(big.Float).Neg(limit)) <= 0:
		require.EqualValues(t, -maxSeconds, seconds, "%q", text)
	case number.Sign() > 0 && number.Cmp(big.NewFloat(1)) < 0:
		require.EqualValues(t, 1, seconds, "%q", text)
	case number.Sign() < 0 && number.Cmp(big.NewFloat(-1)) > 0:
		require.EqualValues(t, -1, seconds, "%q", text)
	default:
		// The floor of number, give or take what a float64 can't show.
		below := new(big.Float).Sub(number, big.NewFloat(1))
		above := new(big.Float).Add(number, big.NewFloat(1e-6))
		got := new(big.Float).SetInt64(seconds)
		require.True(t, got.Cmp(above) <= 0 && got.Cmp(below) > 0, "%q: %d", text, seconds)
	}
}

var decimal = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$`)

func isDecimal(text string) bool { return decimal.MatchString(text) }

// exactly returns a decimal number's value, or nil if its exponent is too large
// to be computed in a moment.
func exactly(text string) *big.Float {
	_, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	if len(strings.TrimLeft(exponent, "+-0")) > 5 {
		return nil
	}
	number, _, err := big.ParseFloat(text, 10, 2000, big.ToNearestEven)
	if err != nil {
		return nil
	}
	return number
}
