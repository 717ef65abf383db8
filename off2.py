import pickle,numpy as np
from ndml.btsp.contradiction import _CHANGE,_NEWS
D=pickle.load(open("/tmp/w4exp/pairs.pkl","rb"))
for d in D: d["ch"]=np.array([bool(_CHANGE.search(t) or _NEWS.search(t)) for t in d["texts"][:10]])
def sim(d,rule):
    n=min(10,len(d["lab"])); sc=np.array(d["sc"][:n]); c=d["C"][:n,:n]; told=np.array(d["told"][:n]); ap=np.array(d["apart"][:n]); said=d["said"][:n]
    rat=sc/np.maximum(sc[:,None],1e-6)
    alike=rule(c,rat,told[:,None],told[None,:]*np.ones((n,1),bool),d["ch"][:n][None,:]*np.ones((n,1),bool))
    alike=alike&(ap[:,None]==ap)
    alike=alike|(told[:,None]&told)
    takes=alike&(said>said[:,None])
    after=sc.copy()
    for i in range(n):
        l=takes[i]&(after<after[i]); after[l]=after[i]
    best=np.lexsort((-said,-np.round(after,4)))[0]
    return d["lab"][best]
rules={
"any .5":lambda c,r,ti,tj,ch:c>=.5,
"any .45":lambda c,r,ti,tj,ch:c>=.45,
"any .55":lambda c,r,ti,tj,ch:c>=.55,
".5 ratio .2":lambda c,r,ti,tj,ch:(c>=.5)&(r>=.2),
".5 ratio .3":lambda c,r,ti,tj,ch:(c>=.5)&(r>=.3),
".5 ratio.1|.4 r.6":lambda c,r,ti,tj,ch:(c>=.5)&(r>=.1)|(c>=.4)&(r>=.6),
".5|.4 r.6":lambda c,r,ti,tj,ch:(c>=.5)|(c>=.4)&(r>=.6),
".5|.35 r.7":lambda c,r,ti,tj,ch:(c>=.5)|(c>=.35)&(r>=.7),
".5|.4 ch":lambda c,r,ti,tj,ch:(c>=.5)|(c>=.4)&ch,
".5|.35 ch":lambda c,r,ti,tj,ch:(c>=.5)|(c>=.35)&ch,
".5|.35 ch r.3":lambda c,r,ti,tj,ch:(c>=.5)|(c>=.35)&ch&(r>=.3),
".5|.3 ch r.3":lambda c,r,ti,tj,ch:(c>=.5)|(c>=.3)&ch&(r>=.3),
".5|.4 r.5":lambda c,r,ti,tj,ch:(c>=.5)|(c>=.4)&(r>=.5),
".5|.4 r.5|.35 ch r.4":lambda c,r,ti,tj,ch:(c>=.5)|(c>=.4)&(r>=.5)|(c>=.35)&ch&(r>=.4),
".45 r.2":lambda c,r,ti,tj,ch:(c>=.45)&(r>=.2),
".6-.2r":lambda c,r,ti,tj,ch:c>=.6-.2*np.clip(r,0,1),
".7-.4r":lambda c,r,ti,tj,ch:c>=.7-.4*np.clip(r,0,1),
".65-.3r":lambda c,r,ti,tj,ch:c>=.65-.3*np.clip(r,0,1),
"told needs .55":lambda c,r,ti,tj,ch:c>=np.where(ti&~tj,.55,.5),
"told needs .6":lambda c,r,ti,tj,ch:c>=np.where(ti&~tj,.6,.5),
".6-.2r, told .65-.2r":lambda c,r,ti,tj,ch:c>=np.where(ti&~tj,.65,.6)-.2*np.clip(r,0,1),
}
for nm,rule in rules.items():
    out=[]
    for s in ("main","second","seed2"):
        for t in (0,1):
            out.append(100*np.mean([sim(d,rule)=="R" for d in D if d["set"]==s and bool(d["at"])==bool(t)]))
    print(f"{nm:24s}"," ".join(f"{x:5.1f}" for x in out),"mean %.2f"%np.mean(out))
