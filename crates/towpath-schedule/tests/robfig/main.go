// Writes what the library that Kubernetes uses makes of many expressions: `go run . >cases.json`, in this folder.
//
// The sequence of random numbers is fixed, so the output changes only with this program, the library or the time zones.
package main

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"time"
	_ "time/tzdata"

	"github.com/robfig/cron/v3"
)

// Case is one expression and, where it is accepted, its next runs.
type Case struct {
	Expression string  `json:"expression"`
	Zone       string  `json:"zone,omitempty"`
	Accepted   bool    `json:"accepted"`
	After      int64   `json:"after,omitempty"`
	Next       []int64 `json:"next,omitempty"`
}

// Without Pacific/Apia: at the day that it left out in 2011 the library never comes back.
var zones = []string{
	"UTC", "Europe/Berlin", "Europe/London", "Europe/Dublin", "America/New_York", "America/St_Johns", "America/Sao_Paulo",
	"America/Santiago", "America/Asuncion", "America/Havana", "America/Caracas", "America/Nuuk", "Africa/Cairo",
	"Africa/Casablanca", "Asia/Beirut", "Asia/Amman", "Asia/Gaza", "Asia/Tehran", "Asia/Kolkata", "Asia/Kathmandu",
	"Asia/Pyongyang", "Australia/Sydney", "Australia/Lord_Howe", "Pacific/Chatham", "Pacific/Norfolk",
	"Antarctica/Troll",
}

var random = rand.New(rand.NewSource(1))

func pick(of []string) string { return of[random.Intn(len(of))] }

// Mostly a value of the field, now and then one that it does not have.
func value(least, most int, names []string) string {
	switch n := random.Intn(40); {
	case n == 0:
		return fmt.Sprint(most + 1)
	case n == 1:
		return fmt.Sprint(least - 1)
	case n < 12 && names != nil:
		return pick(names)
	}
	return fmt.Sprint(least + random.Intn(most-least+1))
}

func item(least, most int, names []string) string {
	text := ""
	switch random.Intn(8) {
	case 0, 1, 2:
		text = pick([]string{"*", "*", "*", "?"})
	case 3:
		text = value(least, most, names) + "-" + value(least, most, names)
	default:
		text = value(least, most, names)
	}
	if random.Intn(4) == 0 {
		text += fmt.Sprintf("/%d", 1+random.Intn(most))
	}
	return text
}

func field(least, most int, names []string) string {
	items := []string{item(least, most, names)}
	for random.Intn(4) == 0 {
		items = append(items, item(least, most, names))
	}
	return strings.Join(items, ",")
}

func sometimes(odds int, text string) string {
	if random.Intn(odds) == 0 {
		return text
	}
	return "*"
}

func expression() string {
	months := []string{"jan", "Feb", "MAR", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	days := []string{"sun", "Mon", "TUE", "wed", "thu", "fri", "sat"}
	text := strings.Join([]string{
		field(0, 59, nil), field(0, 23, nil), sometimes(3, field(1, 31, nil)), sometimes(4, field(1, 12, months)), sometimes(3, field(0, 6, days)),
	}, " ")
	if random.Intn(6) == 0 {
		// Times of day around the hours at which clocks change.
		text = fmt.Sprintf("%s %s %s", pick([]string{"0", "30", "*/15", "5,50", "59"}),
			pick([]string{"0", "1", "2", "3", "23", "1-3", "23,0", "*/2"}), pick([]string{"* * *", "* * sun", "* * fri", "1 * *", "*/2 * 0"}))
	}
	if random.Intn(6) == 0 {
		text = mangled(text)
	}
	return text
}

// One or two characters are others than before.
func mangled(text string) string {
	characters := []rune(text)
	for range 1 + random.Intn(2) {
		at := random.Intn(len(characters))
		by := []rune(pick([]string{"", " ", "*", "?", "-", "/", ",", "0", "7", "9", "+", "L", "#", "@", "ü", "\t"}))
		characters = append(characters[:at], append(by, characters[at+random.Intn(2):]...)...)
		if len(characters) == 0 {
			break
		}
	}
	return string(characters)
}

// A moment, most of the time within days of a change of the clock.
func moment(zone *time.Location) time.Time {
	at := time.Date(2010+random.Intn(15), 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(random.Int63n(365*24*3600)) * time.Second)
	if random.Intn(4) > 0 {
		_, before := at.In(zone).Zone()
		for hours := 0; hours < 366*24; hours++ {
			later := at.Add(time.Duration(hours) * time.Hour)
			if _, now := later.In(zone).Zone(); now != before {
				return later.Add(-time.Duration(random.Int63n(int64(36 * time.Hour)))).Truncate(time.Second)
			}
		}
	}
	return at
}

func accepted(text string) (schedule cron.Schedule) {
	// It panics at a time zone without an expression; Kubernetes takes that for an error.
	defer func() {
		if recover() != nil {
			schedule = nil
		}
	}()
	schedule, err := cron.ParseStandard(text)
	if err != nil || strings.Contains(text, "TZ") {
		return nil
	}
	return schedule
}

func main() {
	written := []string{
		"", " ", "* * * * *", "* * * *", "* * * * * *", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight",
		"@hourly", "@Hourly", " @hourly", "@hourly ", "@every 1h30m", "@every 90s", "@every 1.5s", "@every 0.2s", "@every 0",
		"@every -1h", "@every 1d", "@every", "@every ", "@every  1h", "@every 1h 30m", "@reboot", "@", "TZ=UTC 0 0 * * *",
		"CRON_TZ=Europe/Berlin 0 0 * * *", "TZ=0", "TZ=", " TZ=UTC 0 0 * * *", "0 0 * * 7", "0 0 * * 0-7", "0 0 */2 * 1",
		"0 0 */1 * 1", "0 0 13 * 5", "0 0 ? * 5", "0 0 13 * ?", "0 0 30 2 *", "0 0 29 2 *", "0 0 31 4,6 *", ", 0 * * *",
		"1,,2 0 * * *", "*-5 0 * * *", "*-5-6/7 0 * * *", "+5 0 * * *", "05 0 * * *", "5/10 * * * *", "5-/10 * * * *",
		"0 0 1W * *", "0 0 L * *", "0 0 * * 5#2", "0\t0 \u00a0* * *", "0 0 * JAN-dec SUN-sat", "0 0 * * Sunday", "1e1 0 * * *",
		"0x10 0 * * *", "1_0 0 * * *", "30-10 * * * *", "*/0 * * * *", "*/60 * * * *", "*/99999999999 * * * *",
		"99999999999999999999 * * * *", "0 0 * * fri,", "0 16 * * FRI",
	}
	out := []Case{}
	for at := 0; at < 3000; at++ {
		text := ""
		if at < len(written) {
			text = written[at]
		} else {
			text = expression()
		}
		schedule := accepted(text)
		found := Case{Expression: text, Accepted: schedule != nil}
		if schedule != nil {
			found.Zone = pick(zones)
			zone, err := time.LoadLocation(found.Zone)
			if err != nil {
				panic(err)
			}
			at := moment(zone)
			found.After = at.Unix()
			for range 4 {
				if spec, is := schedule.(*cron.SpecSchedule); is {
					spec.Location = zone
				}
				at = schedule.Next(at)
				if at.IsZero() {
					break
				}
				found.Next = append(found.Next, at.Unix())
			}
		}
		out = append(out, found)
	}
	lines := []string{}
	for _, found := range out {
		line, err := json.Marshal(found)
		if err != nil {
			panic(err)
		}
		lines = append(lines, string(line))
	}
	fmt.Fprintf(os.Stdout, "[\n%s\n]\n", strings.Join(lines, ",\n"))
}
