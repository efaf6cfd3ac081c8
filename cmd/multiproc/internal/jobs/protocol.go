package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// A Protocol is how records and answers stand in the lines of a worker.
type Protocol string

// The protocols.
const (
	Lines Protocol = "line" // a line is a record, the next line is its answer
	JSON  Protocol = "json" // {"id":1,"data":…} is answered by {"id":1,"result":…} or {"id":1,"error":"…"}, in any order
)

// Protocols are all of them.
var Protocols = []Protocol{Lines, JSON}

// Check says what is wrong with a record.
func (p Protocol) Check(line string) error {
	if p == JSON && !json.Valid([]byte(line)) {
		return errors.New("it is not a JSON value, which it has to be with --proto json")
	}
	return nil
}

// AppendRecord appends a record to what a worker is to read.
func (p Protocol) AppendRecord(dst []byte, id uint64, line string) []byte {
	if p == JSON {
		dst = append(dst, `{"id":`...)
		dst = strconv.AppendUint(dst, id, 10)
		dst = append(append(append(dst, `,"data":`...), line...), '}')
	} else {
		dst = append(dst, line...)
	}
	return append(dst, '\n')
}

// Answer is what a line of a worker says.
type Answer struct {
	ID     uint64 // of the record; 0: the first one that has no answer
	Text   string // the answer
	Failed string // why there is none; empty: there is one
}

// Parse reads a line of a worker. The error says why it is no answer.
func (p Protocol) Parse(line string) (Answer, error) {
	if p != JSON {
		return Answer{Text: line}, nil
	}
	var said struct {
		ID     *uint64         `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal([]byte(line), &said); err != nil || said.ID == nil || *said.ID == 0 {
		return Answer{}, fmt.Errorf(`it wrote %.60q, which is no object with "id" and "result" or "error"`, line)
	}
	a := Answer{ID: *said.ID, Text: "null"}
	switch {
	case said.Error != nil && string(said.Error) != "null":
		a.Text = ""
		if json.Unmarshal(said.Error, &a.Failed) != nil || a.Failed == "" {
			a.Failed = string(said.Error)
		}
	case said.Result != nil:
		a.Text = string(said.Result)
	}
	return a, nil
}
