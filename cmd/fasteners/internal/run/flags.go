package run

import (
	"errors"
	"math"
	"strconv"
	"time"
)

// secondsFlag is a flag for a duration, in seconds if it has no unit.
type secondsFlag time.Duration

func (s *secondsFlag) String() string {
	if *s <= 0 { // no limit, or nothing to do
		return ""
	}
	return time.Duration(*s).String()
}

func (*secondsFlag) Type() string { return "duration" }

func (s *secondsFlag) Set(text string) error {
	d, err := time.ParseDuration(text)
	if n, numErr := strconv.ParseFloat(text, 64); numErr == nil {
		// A longer time than some years is as good as any other.
		d, err = time.Duration(math.Ceil(min(n, 1e9)*1e9)), nil
		if math.IsNaN(n) {
			d = -1
		}
	}
	if err != nil || d < 0 {
		return errors.New("not a duration such as 5, 0.5 or 2m30s")
	}
	*s = secondsFlag(d)
	return nil
}

// statusFlag is a flag for an exit status.
type statusFlag int

func (s *statusFlag) String() string { return strconv.Itoa(int(*s)) }
func (*statusFlag) Type() string     { return "status" }

func (s *statusFlag) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return errors.New("not a number from 0 to 255")
	}
	*s = statusFlag(n)
	return nil
}
