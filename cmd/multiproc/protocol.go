package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// A protocol is how records and answers stand in the lines of a worker.
type protocol string

const (
	lineProtocol protocol = "line" // a line is a record, the next line is its answer
	jsonProtocol protocol = "json" // {"id":1,"data":…} is answered by {"id":1,"result":…} or {"id":1,"error":"…"}, in any order
)

var protocols = []protocol{lineProtocol, jsonProtocol}

// check says what is wrong with a record.
func (p protocol) check(line string) error {
	if p == jsonProtocol && !json.Valid([]byte(line)) {
		return fmt.Errorf("it is not a JSON value, which it has to be with --proto json")
	}
	return nil
}

// appendRecord appends a record to what a worker is to read.
func (p protocol) appendRecord(dst []byte, id uint64, line string) []byte {
	if p == jsonProtocol {
		dst = append(dst, `{"id":`...)
		dst = strconv.AppendUint(dst, id, 10)
		dst = append(append(append(dst, `,"data":`...), line...), '}')
	} else {
		dst = append(dst, line...)
	}
	return append(dst, '\n')
}

// parse returns which of the questions a line answers, and the answer. The error says why it answers none.
func (p protocol) parse(line string, asked []*question) (i int, a answer, err error) {
	if p != jsonProtocol {
		if len(asked) == 0 {
			return 0, a, fmt.Errorf("it wrote a line without having been asked: %.60q; it has to write one line for each that it reads", line)
		}
		return 0, answer{Line: line}, nil
	}
	var said struct {
		ID     *uint64         `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal([]byte(line), &said); err != nil || said.ID == nil {
		return 0, a, fmt.Errorf(`it wrote %.60q, which is no object with "id" and "result" or "error"`, line)
	}
	i = slices.IndexFunc(asked, func(q *question) bool { return q.id == *said.ID })
	switch {
	case i < 0:
		return 0, a, fmt.Errorf("it answered %d, which it was not asked", *said.ID)
	case said.Error != nil && string(said.Error) != "null":
		var text string
		if json.Unmarshal(said.Error, &text) != nil || text == "" {
			text = string(said.Error)
		}
		return i, answer{Failed: text}, nil
	case said.Result == nil:
		return i, answer{Line: "null"}, nil
	}
	return i, answer{Line: string(said.Result)}, nil
}
