"""How the review threads say and ask things. {f} is a function, {file} its file, {here} names the file or nothing."""

from __future__ import annotations

QUERY = (
    "[Why|For what reason|On what ground] does `{f}`{here} {doing}?",
    "[I wonder|Could you explain|Honest question]: `{f}`{here}, why does it {doing}?",
    "`{f}`{here}: [must it really|is there a need to|do we have to] {doing}?",
    "[In|About|Concerning] `{f}`: what is the reason to {doing}{here}?",
)
REPLY = (
    "[Because|It has to:|Sadly yes,] {ground}.",
    "[Yes|On purpose], {ground}. [I'll add a comment|Worth a note, I agree|]",
    "[Long story|Good question|Fair point]: {ground}.",
    "[Mainly since|The thing is that|I had it otherwise, but] {ground}.",
    "For `{f}` [it is because|the reason is that|I did that since] {ground}.",
    "`{f}` does so because {ground}[, see the ticket|].",
)
CONTENT = (
    "[Ah|I see|Right], [thanks|makes sense|then leave it].",
    "[OK|Understood|Convinced]. [Resolving|Please say so in a comment|No change needed].",
    "[Not pretty|A pity], but [fine|I have no better idea|let's go].",
)
ASK_WHY = (
    "[Why|For what reason] does {f} [in|of] {file} {doing}?",
    "What [ground|reason] was given that {f} of {file} has to {doing}?",
    "[What did the author say to|How was it justified to|What explains the need to] {doing} in {f} of {file}?",
    "{f} in {file}: [what is the reason to|why must one|what speaks for having to] {doing}?",
)
BREAKS = (
    "`{f}`{here} [breaks|fails|goes wrong] when {condition}.",
    "[What happens in|Think of|Careful with] `{f}`{here} when {condition}? [I get a panic|It loops here|Wrong result on my side].",
    "[I tried|Ran] it: `{f}`{here} [crashes|hangs|returns rubbish] as soon as {condition}.",
    "When {condition}, `{f}`{here} [misbehaves|does not stop|corrupts its output].",
)
MENDED = (
    "[Good catch|Oops|Well seen|True]. I {repair}.",
    "[Fixed|Done|Pushed]: {repair}.",
    "[I missed that|Embarrassing|Thanks]; {repair} [in the next commit|as of {hash}|].",
    "[Right|Agreed], {repair}[, and `{f}` has a test for it|].",
)
ASK_BREAKS = (
    "[In which case|Under which condition|When] does {f} in {file} [break|fail|go wrong]?",
    "Which input [made|makes] {f} of {file} [misbehave|fail]?",
    "What [problem|defect] was [found|reported] in {f} of {file}?",
    "[What|Which case] did the reviewer [find|point out] about {f} of {file}?",
)
ASK_MENDED = (
    "How [was|did the author get] {f} in {file} [mended|right] for the case that {condition}?",
    "What [was changed|did the author do|was the remedy] in {f} of {file} for when {condition}?",
    "{f} of {file} when {condition}: [what is the remedy|how was it solved|what happens now]?",
    "[Which change|What] makes {f} of {file} safe when {condition}?",
)
ASK_FOUND = (
    "When did [somebody|a reviewer] [notice|report|find] that {f} of {file} fails when {condition}?",
    "[On which day|At what date] was it [seen|reported] that {f} in {file} breaks when {condition}?",
    "Since when do we know [of|about] the trouble of {f} in {file} when {condition}?",
    "[When|On what day] did the [problem|weakness] of {f} of {file} come up, if {condition}?",
)
RENAME = (
    "`{f}`{here} [says little|is misleading|could mean anything]. [How about|What of|Maybe] `{new}`?",
    "[Nit, but|Naming:|Small thing:] `{f}`{here} -> `{new}`?",
    "I would [call|name] `{f}`{here} `{new}`[, it is clearer|].",
    "[Can we|Could you] rename `{f}`{here}? `{new}` [reads better|tells what it does].",
)
RENAMED = (
    "[Done|Sure|Renamed|Much better]. [All callers too|Pushed|In {hash}|].",
    "[OK|Fine with me|Agreed], [changed everywhere|search and replace done|also in the docs].",
    "[Taken|I like it], [done|thank you|it is in].",
)
RENAMED_ELSE = (
    "[Not quite|Close, but]: I took `{other}`.",
    "[Hm|Well|Sorry], `{other}` [fits the neighbours better|is shorter|is what the docs say], so I used that.",
    "[Renamed, though to|It is now called|I went for] `{other}`.",
)
ASK_RENAMED = (
    "What is {f} of {file} called now?",
    "[Which|What] name did {f} [in|of] {file} get?",
    "To what was {f} in {file} renamed?",
    "[How does one call|Under which name do I find|What replaced the name of] {f} of {file} [today|now]?",
)
AGREED = (
    "[So we agree|Decision|Let us write down]: {topic} in {file}, {policy}.",
    "For {topic}{here} we [use|take|go with] {policy}.",
    "[Consensus on|Outcome for] {topic}{here}: {policy}.",
    "{topic}{here}: [let's do|settled on|we agree on|I vote for, and nobody objects to] {policy}.",
)
AGREED_HEARD = (
    "[Fine by me|No objection|+1|Works for me].",
    "[OK|All right], [I'll adapt the rest|that settles it|let's see how it wears].",
    "[I had hoped for something else|Not my favourite], but [fine|agreed|I can live with it].",
)
AGAINST = (
    "[I have to come back to|We must talk again about|Reopening] {topic}{here}: {trouble}.",
    "[Sorry, but|It turns out that|After a month:] {trouble}. [So much for our {topic}|That is our {topic}|{topic} must change]{here}.",
    "{policy} for {topic}{here} [does not hold|was a mistake|hurts]: {trouble}.",
)
REVERSED = (
    "[Then|OK,|Agreed,] from [here|now] on {policy}.",
    "[Reversed|We turn round|New decision]: {policy}.",
    "[Let us change to|I'll move it to|We replace it by] {policy}[. Old code stays until May|, in this request|].",
    "{policy} [instead|then], [for {topic}|as some of us said back then|in all of the module].",
    "{topic}{here}: {policy}[ from now on| as of today|, then].",
    "[New rule|Revised decision|Update] for {topic}{here}: {policy}.",
)
ASK_NOW = (
    "What do we [do now|use today] for {topic} in {file}?",
    "[Which way|What] is the [current|valid] decision on {topic} of {file}?",
    "How is {topic} [handled|done] in {file} [these days|at present|after the last decision]?",
    "{file}, {topic}: what [holds|is agreed] [now|in the end]?",
)
ASK_AGAINST = (
    "Why [did we give up|was it decided to drop|did we abandon] {policy} for {topic} in {file}?",
    "What was [wrong with|the trouble with|bad about] {policy} in {file}?",
    "What [speaks|spoke] against {policy} for {topic} of {file}?",
    "[For what reason|Because of what] was {policy} [given up|replaced] in {file}?",
)
ASK_TURN = (
    "How did the decision on {topic} in {file} change?",
    "[From what to what|How] did we [turn|change our mind] about {topic} in {file}?",
    "What [was first decided|did we say first] on {topic} of {file}, and what [later|in the end]?",
    "[Give me the history of|Tell the story of|List the decisions on] {topic} in {file}.",
)
LIMIT = (
    "Is the {limit} of `{f}`{here} [too large|too small|measured or guessed]?",
    "The {limit} of `{f}`{here} [looks odd|worries me|wants a reason].",
    "[What about|Could we lower|Should we raise|Who chose|Any reason for|May I doubt] the {limit} of `{f}`{here}?",
)
LIMIT_SET = (
    "[Set to|Now|I made it|Let's take] {value}[, {ground}|].",
    "[It is|We have] {value} [now|as of {hash}|from this commit on]: {ground}.",
    "{limit} = {value}, [as {ground}|final|after a look at the graphs].",
    "`{f}` [has|gets] {value} [now|].",
)
ASK_LIMIT = (
    "What is the {limit} of {f} in {file}?",
    "[Which|What] {limit} was [set|agreed|chosen] for {f} of {file}?",
    "[To what value|How high|To which number] did we [set|put] the {limit} of {f} in {file}?",
    "{f}, {file}: [which|what] {limit}?",
)
ASK_SIGN = (
    "[I'd like|We need|Please get] {person} to look at `{f}`{here}, who {skill}.",
    "`{f}`{here} [should not go in|waits|stays open] until {person} approves: {person} {skill}.",
    "{person} {skill}, [so|therefore] [ask there about|we want that opinion on|add that name to] `{f}`{here}.",
)
SIGNED = (
    "[Added as reviewer|Asked|Pinged], [let's wait|will come back to this|no hurry].",
    "[OK|Sure|Good idea], [I wrote a message|I'll ask tomorrow|done].",
)
ASK_WHO = (
    "Who {skill} [when it comes to|in the case of|regarding] {f} of {file}?",
    "[Whose approval|Whose opinion] was [wanted|needed] for {f} in {file}?",
    "[Which person|Who] should [look at|approve] {f} of {file}, as somebody who {skill}?",
    "[Whom do I ask|Who is the one to ask] about {f} in {file}?",
)
WANT_TEST = (
    "[Is there|Do we have|I miss] a test of `{f}`{here} for when {condition}?",
    "[Please|Can you] [cover|check] `{f}`{here} [too|as well] when {condition}.",
    "`{f}`{here} wants a test: {condition}.",
)
TESTED = (
    "[It is in|Added to|See] {path}.",
    "{path} [has one|has it now|line {n}].",
    "[Covered by|New one in|You find it in] {path}[, a bit hidden|].",
    "[Yes|Now yes], `{f}` is [tried|covered] in {path}.",
)
ASK_TEST = (
    "Where [is|do we have|can I read] the test of {f} of {file} for when {condition}?",
    "Which [test file|file|test] [covers|tries] {f} in {file} when {condition}?",
    "{f} of {file}, when {condition}: [where is that tested|which file checks it|where do I find the check]?",
    "[In what file|Where] is it checked that {f} of {file} copes when {condition}?",
)
FASTER = (
    "[Numbers for|Benchmark of|Timing of] `{f}`{here}: {before} -> {after}.",
    "`{f}`{here} [went from|is down from|used to take] {before}, [now|it is] {after}.",
    "[I measured|Ran the bench on] `{f}`{here}: {after} [after|where it was] {before}.",
)
FASTER_HEARD = (
    "[Nice|Impressive|Worth it]. [On which machine|Merge it|And memory]?",
    "[Good enough|I had hoped for more|That pays], [go ahead|ship it|please note it in the change log].",
)
ASK_FASTER = (
    "How [fast|quick] is {f} of {file} [now|after the change|since the rewrite]?",
    "What did the benchmark of {f} in {file} [give|show|say]?",
    "[By how much|How far] did {f} of {file} get [faster|quicker]?",
    "[Which|What] [timing|run time] was measured for {f} of {file}?",
)
LATER = (
    "[I leave|Let me leave|I'd do] {follow} of `{f}`{here} [for later|to a request of its own|aside].",
    "[Not here|Out of scope|Next time]: {follow} of `{f}`{here}.",
    "{follow} of `{f}`{here} [will follow|comes in another change|is a promise].",
)
LATER_HEARD = (
    "[OK|Fine], [but soon|please open a ticket|I will remind you].",
    "[Agreed|Sensible|Yes], [this one is big enough|one thing at a time].",
)
KEPT = (
    "[As promised|Here it is at last|This brings] {follow} for `{f}`{here}[, in {n} commits|].",
    "[Part two|Follow-up]: {follow}, `{f}`{here}[, reviewed by nobody yet|].",
    "{follow} of `{f}`{here} [is done|is here], [see {hash}|ready for a look|finally].",
)
ASK_KEPT = (
    "When was {follow} of {f} in {file} [put off|promised] and when [delivered|done]?",
    "[What became of|What happened to|Was there ever] {follow} of {f} of {file}[, which was left for later|, once promised|]?",
    "[Where was|In which threads is] {follow} of {f} in {file} [announced and delivered|promised and brought]?",
    "[Tell me about|Trace] {follow} of {f} of {file}, [promise and delivery|from the first mention on].",
)
OPENINGS = (
    "[Ready for review|Please have a look|New request]: changes in {file}.",
    "[This touches|I worked on|Some work on] {file}, [feedback welcome|be gentle|no behaviour change intended].",
    "{file}: [second round|small step|as discussed in the call].",
)
CHATTER = (
    "[LGTM|Looks good|Ship it|No remarks from me].",
    "[nit|tiny]: [trailing blank|missing full stop|two empty lines|sort the imports].",
    "[Rebased|Squashed|Force-pushed, sorry]; [CI is green|{n} commits less|please look again].",
    "ci-bot: [all {n} checks passed|build {n} queued|coverage unchanged|{n} warnings, none new].",
    "[Can we talk about this in person|Let's take this to the call|I'll be away until Monday].",
    "[Thanks for the quick review|Much appreciated|You are fast today].",
    "[Why is CI so slow|The runner is stuck again|Retrying the build], [anyone|sigh|one moment].",
    "[Please add yourself to the change log|The change log wants a line|Do not forget the change log].",
    "[Unrelated, but|By the way], [the cafeteria has new chairs|who broke main|I like the new logo].",
)
