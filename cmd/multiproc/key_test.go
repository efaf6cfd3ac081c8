package main

import (
	"testing"
	"time"
)

func TestParseNotAfter(t *testing.T) {
	now := time.Date(2030, 5, 6, 7, 8, 9, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                          {},
		"90m":                       now.Add(90 * time.Minute),
		"30d":                       now.AddDate(0, 0, 30),
		"2030-05-06":                time.Date(2030, 5, 6, 23, 59, 59, 0, time.UTC),
		"2031-12-31":                time.Date(2031, 12, 31, 23, 59, 59, 0, time.UTC),
		"2030-05-06T09:08:10+02:00": now.Add(time.Second),
	} {
		if got, err := parseNotAfter(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	const neither = " is neither a time such as 12h or 30d nor a date such as 2031-12-31"
	for text, want := range map[string]string{
		"tomorrow": `--not-after: "tomorrow"` + neither, "12": `--not-after: "12"` + neither, "-3d": `--not-after: "-3d"` + neither,
		"70000d": `--not-after: "70000d"` + neither, "2031-02-30": `--not-after: "2031-02-30"` + neither,
		"0d": "--not-after: 0d has passed already", "-1h": "--not-after: -1h has passed already",
		"2030-05-05": "--not-after: 2030-05-05 has passed already", "2030-05-06T07:08:09Z": "--not-after: 2030-05-06T07:08:09Z has passed already",
	} {
		if got, err := parseNotAfter(text, now); err == nil || err.Error() != want {
			t.Errorf("%q is %v, %v; want %s", text, got, err, want)
		}
	}
}
