"""The usual words of vendors' error messages. They are not content, even if the request contains them too.

They are taken from recorded error bodies and field lists of the OpenAI and Anthropic APIs and of compatible servers.
All are in lower case. A singular also covers its plural, and the parts of a ``snake_case`` word cover the word. Only
words that identify nobody belong here.
"""

from __future__ import annotations

_WORDS = """
a about above accept accepted access account across action active actual adaptive add added additional after again
against all allow allowed already also alternate an and annotations another anthropic any api are argument array
assign assistant associated at attempt audio authenticate authenticated authentication authorization auto automatic
available background bad balance base base64 batch be because been before begin being below beta between beyond bias
billing block bool boolean both budget but by byte cache cached call caller can canceled cannot capacity case change
character chat check choice choose citations class client code combination combine combined complete completed
completion computer condition config configuration conflict connection consecutive consider contact contain contained
container containing content context control conversation correct correctly cost could count create created creation
credit current currently custom data date day decode default deferred defined delete delta deployment deprecated
describe description destination detail determine developer dict dictionary did different digit dimensions directly
disable disabled display do document documentation does doesn don done due duplicate during each earlier effort either
element else embedding empty enable enabled encode encoded encoding end ended endpoint engine enough ensure entry enum
ephemeral equal error even event every exact exactly example exceed exceeded exceeding except exclusive exist existing
expect expected expired extra fail failed failure false feature few field file filename final find finish first float
follow followed following for forbidden format found frequency from full function further generate get gif given got
grammar greater had has have header help high higher host hour how however http id if ignored image immediate
immediately implemented in include included including incompatible incomplete incorrect index individual inference
input inside instead instructions insufficient int integer internal into invalid invocation is isn it item jpeg json
just key kind known large larger last latency later least length less like limit limited line list literal location
logit logprob longer look low lower made make many mapping match max maximum may maybe mcp media medium mention
message metadata method might mime min minimal minimum minute missing modalities mode model modified month more most
multiple multipleof must name near need needed negative never new next no non none not nothing null num number object
occurred of off omit omitted on once one only open openai operation option optional or order organization other
otherwise our out output over overload overloaded own page parallel param parameter parse parsed parsing part pass
passed path pattern payload pdf penalty per perform period permission permitted pixel place plan please png position
positive possible preceding prediction prefill prefix presence present previous previously priority problem process
processed processing produce project prompt properly properties property provide provided provider quality quota range
rate reach reached read reason reasoning receive received redacted reduce refer reference refusal refused regarding
region reject rejected related remain remaining remove removed repeat replace request requested require required
resource respond response restricted result resulted retention retry return returned role root rpm rule safety same
schema search second see seed select send sent sequence server service session set settings several should show
signature similar simple since single size slow small some something source specified specify spend standard start
started state status still stop stopped store stream streaming strict string structure structured such suffix summary
support supported sure switch syntax system tag take temperature temporarily temporary text than that the their them
then there these they thinking this those though through thus tier time timeout to together token too tool top total
tpm traffic true truncation try tuple turn two type unable unauthorized unavailable under unexpected unexpectedly
unique unit unknown unprocessable unrecognized unsupported until unusable up update upgrade upload uri url us usage
use used user using usual valid validate validation value verbosity version via video violate violation vision voice
wait want was way we web webp were what when where whether which while who will with within without work would write
wrong year you your zero
"""

VOCABULARY: frozenset[str] = frozenset(_WORDS.split())
