package lease

import "time"

// now is a variable for the tests of this package.
var now = boottime

// Now returns the time since some fixed point, on the clock of leases. On Linux this clock goes
// on while the machine is suspended, as the time of a lease does where it was granted. On other
// systems it may stand still meanwhile.
func Now() time.Duration { return now() }

var start = time.Now()
