// Package jobs has the parts of multiproc run that start no process: it reads inputs, makes commands of a template,
// keeps output, and writes job logs. What can be as in GNU parallel is as in GNU parallel.
package jobs
