package jobs

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestProtocols(t *testing.T) {
	for _, test := range []struct {
		proto Protocol
		line  string
		want  Answer
		wrong string
	}{
		{Lines, " x ", Answer{Text: " x "}, ""},
		{JSON, `{"id":4,"result":{"a": 1}}`, Answer{ID: 4, Text: `{"a": 1}`}, ""},
		{JSON, `{"id":3}`, Answer{ID: 3, Text: "null"}, ""},
		{JSON, `{"id":3,"result":1,"error":null}`, Answer{ID: 3, Text: "1"}, ""},
		{JSON, `{"id":3,"error":"bad"}`, Answer{ID: 3, Failed: "bad"}, ""},
		{JSON, `{"id":3,"error":{"code":1}}`, Answer{ID: 3, Failed: `{"code":1}`}, ""},
		{JSON, `{"id":3,"error":""}`, Answer{ID: 3, Failed: `""`}, ""},
		{JSON, `{"id":0,"result":1}`, Answer{}, "is no object"},
		{JSON, `{"result":1}`, Answer{}, "is no object"},
		{JSON, `hello`, Answer{}, "is no object"},
	} {
		got, err := test.proto.Parse(test.line)
		if test.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%s: %v, want %s", test.line, err, test.wrong)
			}
		} else if err != nil || got != test.want {
			t.Errorf("%s is %+v, %v; want %+v", test.line, got, err, test.want)
		}
	}
}

// FuzzJSONRecord has every record that is let through arrive as it is, in one line.
func FuzzJSONRecord(f *testing.F) {
	f.Add(`{"a":[1,2]}`)
	f.Add(` "x" `)
	f.Add("1\r")
	f.Fuzz(func(t *testing.T, record string) {
		if strings.Contains(record, "\n") || JSON.Check(record) != nil {
			return
		}
		line := string(JSON.AppendRecord(nil, 7, record))
		var got struct {
			ID   int             `json:"id"`
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil || got.ID != 7 || strings.TrimSpace(string(got.Data)) != strings.TrimSpace(record) {
			t.Errorf("%q becomes %q: %v", record, line, err)
		}
		if strings.Count(line, "\n") != 1 {
			t.Errorf("%q becomes several lines: %q", record, line)
		}
	})
}
