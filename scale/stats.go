package scale

import "slices"

// median is the middle of xs in order of size, the mean of the two middle ones when their number is
// even. xs is not empty, not negative and not changed.
func median[T ~int64](xs []T) T {
	xs = slices.Sorted(slices.Values(xs))
	mid := len(xs) / 2
	if len(xs)%2 == 1 {
		return xs[mid]
	}
	return xs[mid-1] + (xs[mid]-xs[mid-1])/2
}

// mad is the median absolute deviation of xs from their median.
func mad[T ~int64](xs []T) T {
	center := median(xs)
	distances := make([]T, len(xs))
	for i, x := range xs {
		distances[i] = max(x-center, center-x)
	}
	return median(distances)
}
