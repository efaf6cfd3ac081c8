// Command files-process writes files, each in a process of its own.
//
//	go run ./examples/files-process -files 10
//
// All processes run at once. While one waits for the disk the system runs the others, but all of
// them are in memory together: ../files-pool keeps only as many as it has workers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/seed84f35039/multiproc"
)

// write creates the named file, writes to it and closes it. It has no result but its error.
var write = multiproc.Register("write", func(_ context.Context, name string) (struct{}, error) {
	f, err := os.Create(name)
	if err != nil {
		return struct{}{}, err
	}
	_, err = fmt.Fprintln(f, "written by a process")
	return struct{}{}, errors.Join(err, f.Close())
})

func main() {
	multiproc.Init()
	files := flag.Int("files", 10, "number of files to write")
	flag.Parse()
	if err := run(context.Background(), *files); err != nil {
		log.Fatal(err)
	}
}

// run writes the files in a folder that it removes again, and says how long that took.
func run(ctx context.Context, files int) error {
	dir, err := os.MkdirTemp("", "files-process-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	start := time.Now()
	var started []*multiproc.Process[struct{}]
	for i := range files {
		p, err := write.Start(ctx, filepath.Join(dir, fmt.Sprintf("file%d.txt", i)), multiproc.ProcessConfig{})
		if err != nil {
			return err
		}
		started = append(started, p)
	}
	for _, p := range started {
		if _, err := p.Wait(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("Time taken %.4f seconds\n", time.Since(start).Seconds())

	written, err := os.ReadDir(dir)
	fmt.Printf("%d files written\n", len(written))
	return err
}
