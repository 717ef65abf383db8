"""How the task logs say and ask things. {thing} is a part of a project, {at} names the project or nothing."""

from __future__ import annotations

RUN = (
    "[Please|Could you|Would you] [run|start|try] the {thing}{at} [once more|again|now|from scratch].",
    "[Next|Now|First]: [kick off|launch|execute] the {thing}{at}[ and tell me how it goes| and watch it|].",
    "[Let's see|I want to see] whether the {thing}{at} [gets through|passes|is healthy] [today|this time|after the merge].",
)
BROKE = (
    "$ [make|just|task] {slug} -> [FAILED|failed|stopped]: {error}",
    "> [run|job|step] {slug} [ended|finished] with {error}",
    "> {slug}: {error} ([see the log|3 warnings before it|after the second stage])",
    "[ERROR|FATAL] [while running|in] {slug}: {error}",
)
CAUSE_NAMED = (
    "The {thing} [failed|broke|went red] because {cause}.",
    "[Found it|Here is why|I know now]: the {thing} [tripped|fell over|gave up] since {cause}.",
    "[Reason for|Behind] the [red|broken] {thing}: {cause}.",
    "It turns out that {cause}, [so|and therefore] the {thing} [could not work|had no chance|stopped].",
)
CAUSE = (
    "[Found it|Got it|I see it now|That explains it]: {cause}.",
    "[It looks as if|Apparently|As far as I can tell|The log says that] {cause}.",
    "[The reason is simple|Nothing mysterious|Root of it]: {cause}.",
    "[After some digging|Ten minutes later|With a debugger it is plain]: {cause}.",
)
REPAIR = (
    "I {repair}[, and it is green again|; passes now|. Fine since then|].",
    "[Done|Repaired|Solved]: {repair}.",
    "[To mend it|As a remedy|For that] I {repair}[; pushed|, committed as {hash}|].",
    "[OK|Right], I {repair}. [Shall I go on|Anything else|Next one]?",
)
ASK_WHY = (
    "Why did the {thing} of {project} [fail|break|not get through]?",
    "What was [wrong with|the matter with|the trouble behind] the {thing} in {project}?",
    "[For what reason|On what account] did the {thing} of {project} [go red|stop|fall over]?",
    "What made {project}'s {thing} [break|fail|give up]?",
)
ASK_REPAIR = (
    "How was the {thing} of {project} [repaired|mended|brought back]?",
    "What did [you|the assistant] do [about|against the failure of|to get past the breakage in] {project}'s {thing}?",
    "Which [remedy|change] got the {thing} in {project} [going|working] again?",
)
ASK_WHEN_BROKE = (
    "When did the {thing} of {project} [fail|break|go red|stop]?",
    "On which day did {project}'s {thing} [stop working|not get through|fall over]?",
    "[What date was it when|Say on what date] the {thing} in {project} [broke|failed|fell over]?",
)
ASK_ERROR = (
    "[Which error|What message|What exactly] did the {thing} of {project} [give|print|end with]?",
    "What did the output say when {project}'s {thing} [failed|broke]?",
    "[How|With what] did the run of the {thing} in {project} [end|stop]?",
)
MEASURE_ASK = (
    "[What is|Tell me|Measure] the {measure} of the {thing}{at}[, please|].",
    "[Can you|Would you] [check|look at|find out] the {measure} of the {thing}{at}?",
    "I need the {measure} [for the report|before the call|]: {thing}{at}.",
)
MEASURED = (
    "{thing}{at}: {measure} {value} [on average|over ten runs|as of now|].",
    "I get {value}. [That is the {measure}|{measure}, measured three times|Same as the {measure} that the monitor shows].",
    "[It comes to|We are at|The monitor says] {value} [for the {measure}|of {measure}].",
    "$ stat {slug} -> {value} [({measure})|  # {measure}]",
)
MEASURE_REMARK = (
    "[Better than I feared|Worse than last month|Fine for now|Good enough], [thanks|leave it|go on].",
    "[Hm|Well], [we can live with that|I had hoped for less|that will do|let me think about it].",
    "[Noted|I'll put it into the slides|OK].",
)
ASK_MEASURE = (
    "What [was|is|did you find as] the {measure} of the {thing} in {project}?",
    "[Remind me of|Say again|Repeat|Tell me] the {measure} of {project}'s {thing}.",
    "[Which figure|What number] did we get for the {measure} of the {thing} of {project}?",
    "What did [we|you|the monitor] [measure|see] as {measure} for {project}'s {thing}?",
)
CHOICE_ASK = (
    "[We need|I have to pick|Let us settle on] something for {purpose}{at}: {a} or {b}?",
    "For {purpose}{at} I [waver|cannot decide] between {a} and {b}. [Your view|What speaks for which|Any thoughts]?",
    "{a} or {b} for {purpose}{at}? [Short answer please|What would you take|Help me choose].",
)
CHOICE_WEIGHED = (
    "[Both work|Either would do|Neither is wrong]. {a} is [older|calmer|better known], {b} [is quicker|has fewer parts|is more fun].",
    "{b} has [the nicer tools|better documents|more users], {a} [ages well|starts faster|is smaller].",
    "[I could live with either|No strong view]; [{a} is what most take|{b} is what I know best].",
)
CHOSEN = (
    "[Then|All right,|Good,] {option}[ it is| then|, final].",
    "[Decision|Settled|My choice]: {option}.",
    "[Take|Go with|I'd rather have|We use] {option}[, please| from now on|].",
    "Let it be {option}[ and no more talk about it|, as I half expected|].",
)
CHOSEN_WHY = (
    "[Mostly because|The point is that|What tips it:|For me it counts that] {reason}.",
    "[After all,|You see,|Simply put,] {reason}.",
    "[Reason|My ground]: {reason}.",
    "[I say so because|What convinced me is that|And why:] {reason}.",
)
ASK_CHOSEN = (
    "What did [we|I] [choose|settle on|decide to take] for {purpose} in {project}?",
    "What [serves|is used] for {purpose} [at|in] {project}?",
    "Which [tool|product|technology] does {project} have for {purpose}?",
    "[Remind me|Say]: {project}, {purpose}, what was the decision?",
)
ASK_CHOSEN_WHY = (
    "Why did [we|I] [choose|take|settle on] {option} for {project}?",
    "What [spoke for|tipped the scales towards|was the argument for] {option} in {project}?",
    "[On what ground|For what reason|Why] does {project} [use|have] {option}?",
)
ASK_SHARED = (
    "Which projects [use|ended up with|settled on|took] {option}?",
    "[In which projects|Where] did [I|we] decide for {option}?",
    "[Name|List|Tell me] the projects that [run on|chose|have] {option}.",
)
PLACE_ASK = (
    "Where [is|do I find|lives] the code of the {thing}{at}?",
    "[I cannot find|I am looking for|Point me to] the {thing}{at}[. Which file|: what path]?",
    "[Which file|What path] [holds|has|contains] the {thing}{at}?",
)
PLACED = (
    "[It is in|Look into|That lives in|You want|Open] {path}.",
    "{path}[, near the top|, second half|, all of it|].",
    "The {thing} [is in|stands in|comes from] {path}.",
    "{thing}: {path}[, about {n} lines|, near the top|].",
    "[All of it stands in|Everything about it is in|The heart of it is] {path}[; there is a test beside it|].",
)
ASK_PLACE = (
    "[Which file|What path] [has|holds|contains] the {thing} of {project}?",
    "Where [is|does one find|lives] {project}'s {thing} [in the source tree|on disk|in the repository]?",
    "[What should I open|Where must I look] to change the {thing} of {project}?",
    "In which source file [is|stands] the {thing} [of|for] {project}?",
)
WISH = (
    "[From now on|In future|One rule for you|Please remember], {topic}{at}: {wish}.",
    "[I would like|I want] {topic}{at} [as follows|done my way|to follow one rule]: {wish}.",
    "[About|As for|Concerning] {topic}{at}: {wish}[, please|. Always|].",
)
WISH_HEARD = (
    "[Understood|Will do|Noted|Agreed][, starting now|. I will keep to it|].",
    "[Fine|Clear|Good][, I have changed the last ones too|, from here on|].",
    "[I'll do it that way|That is how I will do it|Consider it done].",
)
ASK_WISH = (
    "[How do I|How does the user] want {topic} in {project}?",
    "What [rule|wish|instruction] did [I|the user] give [about|for|on] {topic} in {project}?",
    "[What did I ask for|Which habit did I ask you to keep] concerning {topic} of {project}?",
    "[Which convention holds|What is agreed] for {topic} in {project}?",
)
SET = (
    "[I set|I have put|Please set] the {setting} of the {thing}{at} to {value}.",
    "{thing}{at}: {setting} [is now|changed to|=] {value}.",
    "[For the record|Note], the {thing}{at} [has|got] {value} as its {setting}.",
    "[Configured|Deployed] the {thing}{at} with {setting} {value}.",
)
SET_HEARD = (
    "[Good|Thanks|Fine], [keep it|that should do|we'll see].",
    "[Is that enough|Not more|Why not rounder]? [Well|OK], [leave it|fine].",
    "[Write it into the README|Tell the others|Let me know if it pinches].",
)
ASK_SET = (
    "[What is|Which value has|To what did you set] the {setting} of the {thing} in {project}?",
    "[How is|In what way is] the {setting} of {project}'s {thing} [configured|set]?",
    "{project}, {thing}: [what|which] {setting}?",
    "[Remind me of|Tell me|Say again] the {setting} of the {thing} of {project}.",
)
DATED = (
    "The {event} of {project} is [planned for|set for|on] {day}.",
    "[Calendar|Mark it]: {day}, {event}{at}.",
    "[We agreed on|They want|The date is] {day} for the {event}{at}.",
    "{day} [is when we have|will be the day of|is the date for|was fixed for] the {event}{at}.",
)
DATED_HEARD = (
    "[Noted|I have it|In the calendar]. [That leaves little room|Plenty of time|We should freeze a week before].",
    "[Good|OK], I will [plan backwards|remind you|keep the days before it free].",
)
MOVED = (
    "The {event}{at} [slips|moves|was pushed] to {day}.",
    "[Change of plan|Bad news|They called]: {event}{at} on {day} instead.",
    "[New date for|Postponed:] the {event}{at}: {day}.",
    "We [cannot keep|will not make|give up] the old date; [{day} for|on {day} we have|{day} is the new one of] the {event}{at}.",
)
ASK_DATE = (
    "[When|On what day] is the {event} of {project}[ going to be| now|, finally]?",
    "[What is the|Which] date [of|was fixed for] {project}'s {event}?",
    "On which day [does|will] the {event} of {project} [take place|happen]?",
)
ASK_MOVED = (
    "From which date to which was the {event} of {project} [moved|postponed|shifted]?",
    "[How did|In what way did|From what to what did] the [date|schedule|day] of {project}'s {event} change?",
    "[Tell me the first and the final|What were the old and the new] date of the {event} of {project}.",
)
SYMPTOM = (
    "[Trouble|Alarm|Bad morning]: {project} {symptom}, [somewhere around|it seems to be|all signs point to] the {thing}.",
    "[Users report|Support says|I was woken because] the {thing} of {project} {symptom}.",
    "{project} {symptom} [last night|an hour ago|this morning]; the {thing} [is involved|looks guilty|was deployed just before].",
)
EASED = (
    "[For now|As first aid|To stop the bleeding] I [rolled back|switched it off|rerouted traffic|restarted everything].",
    "[It is quiet again|Calm for the moment] [after a restart|since I scaled up|with the old version]; [cause open|no idea why yet].",
    "[I took it offline|I put up a notice|I drained the node] [until we know more|to win time|].",
)
LOOKED_INTO = (
    "About the [incident|mess|bad night] with the {thing}{at}: [it happened because|what did it:] {cause}.",
    "[Post-mortem|I went through the logs], {thing}{at}: {cause}.",
    "[Finally understood|We now know] what hit the {thing}{at}: {cause}.",
    "The [trouble|accident] around the {thing}{at} [is explained|is no riddle any more]: {cause}.",
)
ENDED = (
    "[So|Therefore] I {repair}[. It cannot happen again|; closed|].",
    "[Lasting cure|Follow-up|To prevent it], I {repair}.",
    "[I also|Meanwhile I|To finish it, I] {repair}.",
)
ASK_INCIDENT = (
    "What [lay behind it|was the root cause] when {project} {symptom}?",
    "{project} {symptom} [once|some weeks ago]: [why|what had happened|what was it in the end]?",
    "[Which fault|What defect|What mistake|What] was responsible when the {thing} of {project} {symptom}?",
)
ASK_CURE = (
    "What [ended the incident for good|was done so that it never happens again] after {project} {symptom}?",
    "{project} {symptom}: [what was found and what was changed|tell me cause and cure|what was it, and what helped|its cause and cure].",
    "When {project} {symptom}, [what was|tell me] [the origin and the lasting repair|the fault and the cure|its reason and end]?",
)
CONTACT = (
    "[For|About] the {thing}{at} [ask|talk to|write to] {person}, who {duty}.",
    "{person} {duty}: the {thing}{at} [is theirs|belongs to that team|, I mean].",
    "[Remember that|By the way,|Just so you know:] {person} {duty}, the {thing}{at}.",
    "It is {person} who {duty}[ when it comes to| -] the {thing}{at}.",
)
CONTACT_HEARD = (
    "[Good to know|Thanks|Noted], [I'll write|I will ask there first|saved].",
    "[OK|Understood], [no need for the others then|I'll remember that name|added to the contacts].",
)
ASK_CONTACT = (
    "Who {duty} [with|for|regarding] the {thing} of {project}?",
    "[Whom should I|Which person should one] ask about {project}'s {thing}, that is, who {duty}?",
    "{project}, {thing}: [who|which person|what colleague] {duty}?",
    "Which [colleague|person] {duty} [concerning|in the case of] {project}'s {thing}?",
)
OPENINGS = (
    "[Morning|Hello|Hi|Back again]. [Today|Now] {project}[ again|, please|].",
    "[Let's go on with|Let's pick up|Time for|Switching to] {project}.",
    "[Next session|New day]: {project}. [Where were we|What is open|Ready]?",
)
ANSWERS = (
    "[Ready|Sure|Gladly|Of course]. [The branch is up to date|Nothing new since last time|Two items are open|Tell me where to begin].",
    "[Hello|Good to see you]. [I pulled the latest state|The tree is clean|All quiet].",
)
CHATTER = (
    ("user", "[Thanks|Perfect|Nice|Great], [go on|next|that is all for this point]."),
    ("tool", "$ git status -> [nothing to commit|2 files changed|ahead by {n} commits|on branch main]"),
    ("assistant", "[Done|Pushed|Formatted and pushed|Committed as {hash}]. [What next|Anything else|Shall I continue]?"),
    ("user", "[Give me five minutes|I need coffee|The phone rings|One moment], [back soon|wait|please hold]."),
    ("tool", "$ ls -> [README.md src tests|{n} entries|Makefile docs src|build.log and {n} more]"),
    (
        "assistant",
        "[I looked through the open points|I read the ticket|I went over the diff]: [nothing urgent|{n} lines, harmless|fine].",
    ),
    ("tool", "$ lint -> [clean|0 problems|{n} files checked, no problem|all good]"),
    ("user", "[How long will you need|Are we on track|Is there anything I should know]?"),
    ("assistant", "[About half an hour|Yes|Not really|Give me {n} minutes], [I'll report|on it|nothing blocks me]."),
    ("user", "[Sorry, wrong window|Ignore that|Never mind|Forget the last line]."),
)
